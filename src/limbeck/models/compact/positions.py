"""How far apart two tokens are, as a learned bias on their attention score.

Shapes: H heads; ... any.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def buckets(distance: Tensor, count: int, furthest: int, *, both_ways: bool) -> Tensor:
    """Numbers of the buckets that distances fall into: one each while they are small, then growing by a factor.

    Of n buckets for one direction, the first n/2 hold the distances 0 .. n/2 - 1; the others grow as the logarithm
    up to `furthest`, and the last one holds all that is further.

    Args:
        distance: position of the query less position of the key, integers of any shape.
        count: number of buckets; where `both_ways`, half of them are for keys behind the query.
        furthest: distance from which on all fall into one bucket.
        both_ways: tell keys after the query from keys before it; otherwise they count as distance 0.

    Returns:
        Numbers from 0 to `count` - 1, of the same shape.

    Reference:
        Raffel et al., T5, 2019, arXiv:1910.10683; Shaw et al., 2018, arXiv:1803.02155 (relative positions).
    """
    size = count // 2 if both_ways else count
    far = distance.abs() if both_ways else distance.clamp(min=0)
    exact = size // 2
    growth = torch.log(far.clamp(min=1) / exact) / math.log(furthest / exact)
    coarse = (exact + growth * (size - exact)).long().clamp(max=size - 1)
    index = torch.where(far < exact, far, coarse)
    return index + size * (distance < 0) if both_ways else index


class RelativeBias(nn.Module):
    """One learned number for every head and bucket of distances.

    Args:
        count: number of buckets.
        furthest: distance from which on all fall into one bucket.
        heads: H.
        both_ways: tell keys after the query from keys before it.
    """

    def __init__(self, count: int, furthest: int, heads: int, *, both_ways: bool):
        super().__init__()
        self.furthest, self.both_ways = furthest, both_ways
        self.table = nn.Embedding(count, heads)

    def forward(self, distance: Tensor) -> Tensor:
        """The bias [H, ...] of query-key distances [...]."""
        every = torch.arange(-self.furthest, self.furthest + 1, device=distance.device)
        index = buckets(every, self.table.num_embeddings, self.furthest, both_ways=self.both_ways)
        # what is further shares the last bucket, so that each distance is looked up once and then only fetched
        return self.table.weight.T[:, index][:, distance.clamp(-self.furthest, self.furthest) + self.furthest]
