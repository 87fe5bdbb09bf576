"""A whole vocabulary folded into the few buckets that a sparse teacher speaks of, and gradients unfolded from them.

Terms are then evaluated, by autograd, on [N, C] instead of [N, V]; the vocabulary is passed over once.

Shapes: N rows, V classes, K classes that a row names, C buckets: K, or K + 1 with a tail.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from limbeck.objectives.chunk import Chunk, Soft
from limbeck.objectives.sparse import Support


@dataclass
class Folded:
    """The student's buckets of some rows, and what is needed to get back from them.

    Attributes:
        support: the teacher's classes.
        buckets_NC: the student's log-probabilities of the buckets at T = 1.
        rest_NV: softmax over the classes that are not named, times `total_N1`; zero for the named ones.
        total_N1: sums of `rest_NV`.
        rest_share_N1: the student's probability of all classes that are not named.
    """

    support: Support
    buckets_NC: Tensor
    rest_NV: Tensor
    total_N1: Tensor
    rest_share_N1: Tensor

    def add(self, slopes_NC: Tensor, out_NV: Tensor) -> None:
        """Add the gradient by the logits, of the one by the buckets.

        With b the buckets' log-probabilities, q the classes' probabilities and G = dL/db: dL/dz[v] = G[v] - q[v] sum G
        for a named class, and q[v] (G[rest] / q[rest] - sum G) for the others.
        """
        named = self.support.ids_NK.shape[1]
        all_N1 = slopes_NC.sum(1, keepdim=True)
        outside_N1 = -all_N1 * self.rest_share_N1
        if self.support.tail:
            outside_N1 = outside_N1 + slopes_NC[:, named:]
        out_NV.addcmul_(self.rest_NV, outside_N1 / self.total_N1)
        inside_NK = slopes_NC[:, :named] - all_N1 * self.buckets_NC[:, :named].exp()
        out_NV.scatter_add_(1, self.support.ids_NK, inside_NK.masked_fill_(self.support.empty_NK, 0))


def fold(chunk: Chunk) -> Folded:
    """Fold a chunk's logits, and hand the chunk the softmax that comes out on the way."""
    support, logits_NV, pool = chunk.support, chunk.logits_NV, chunk.pool
    assert support is not None
    named = support.ids_NK.shape[1]
    top_N1 = logits_NV.amax(1, keepdim=True)
    scaled_NV = torch.sub(logits_NV, top_N1, out=chunk.spare("folded scaled", logits_NV))
    named_NK = scaled_NV.gather(1, support.ids_NK).masked_fill_(support.empty_NK, -torch.inf)
    # The rest is summed without the named classes: 1 minus their sum has no digits left where they hold all.
    rest_NV = torch.softmax(support.hide(scaled_NV), 1, out=chunk.spare("folded rest", logits_NV))
    total_N1 = rest_NV.sum(1, keepdim=True)
    rest_N1 = scaled_NV.amax(1, keepdim=True) + (total_N1 / rest_NV.amax(1, keepdim=True)).log()
    log_sum_N1 = torch.logaddexp(named_NK.logsumexp(1, keepdim=True), rest_N1)
    buckets_NC = torch.cat([named_NK, rest_N1] if support.tail else [named_NK], 1) - log_sum_N1
    rest_share_N1 = (rest_N1 - log_sum_N1).exp()
    probs_NV = torch.mul(rest_NV, rest_share_N1 / total_N1, out=chunk.spare("folded probs", logits_NV))
    probs_NV.scatter_add_(1, support.ids_NK, buckets_NC[:, :named].exp())  # exp(-inf) where nothing is named
    one_N1 = torch.ones_like(top_N1)
    chunk.put(soft=Soft(logits_NV, 1.0, top_N1, probs_NV, one_N1, log_sum_N1, pool, ("all", 1.0)))
    return Folded(support, buckets_NC, rest_NV, total_N1, rest_share_N1)
