"""Contrastive representation distillation, with a queue of what the teacher said before.

Shapes: B batch, D and E widths of student and teacher, F width of the embeddings, K places in the queue.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from limbeck.alignment.projectors import LinearProjector, describe
from limbeck.core.errors import RecipeError
from limbeck.core.parts import part
from limbeck.core.types import Batch
from limbeck.objectives.base import FeatureLoss, Pair
from limbeck.objectives.features._common import Told, layers, unit
from limbeck.objectives.relational._common import Pooled, PooledLoss, check_pooled, pooled_width

Negatives = Literal["other_class", "other_sample"]
EMPTY = -1
"""The key of a place in the queue that was not filled yet."""


@part
class CRD(Pooled):
    """The student's embedding finds the teacher's of the same sample among many (contrastive distillation).

    -1/B sum_i log( exp(s_i . t_i / T) / sum_j exp(s_i . t_j / T) ) over j = i and the negatives, with s and t unit
    vectors: linear embeddings, both trained, of student's and teacher's rows. Negatives are the other samples of the
    micro-batch and a queue of earlier ones. The queue holds the teacher's rows from before the embedding, which is
    trained and moves on, so nothing in it is out of date. The paper's estimate asks of each pair whether it belongs
    together, and needs the size of the data set; this is its softmax form (InfoNCE), which does not.

    Reference:
        Tian et al., Contrastive Representation Distillation, 2019, arXiv:1910.10699; van den Oord et al.,
        Representation Learning with Contrastive Predictive Coding, 2018, arXiv:1807.03748.
    """

    temperature: float = Field(default=0.07, gt=0)
    """T: a low one looks at the hardest negatives."""
    embedding_size: int = Field(default=128, ge=1)
    """F."""
    queue_size: int = Field(default=4096, ge=0)
    """K, the number of earlier samples that are kept; 0 compares within the micro-batch alone."""
    negatives: Negatives = "other_sample"
    """Which samples the teacher's own is set apart from: all others, or, for classifiers, those with another label."""

    @property
    def least(self) -> int:
        return 1

    @property
    def takes_blends(self) -> bool:
        return self.negatives != "other_class"

    def build(self, pairs: Sequence[Pair]) -> FeatureLoss:
        check_pooled(pairs, self.pool)
        return _CRD(self, pairs)


class _CRD(PooledLoss):
    def __init__(self, term: CRD, pairs: Sequence[Pair]):
        super().__init__(term, pairs)
        self.temperature, self.negatives = term.temperature, term.negatives
        self.contrasts = nn.ModuleList()
        for one, other in map(layers, pairs):
            widths = pooled_width(one, term.pool), pooled_width(other, term.pool)
            self.contrasts.append(_Contrast(*widths, term.embedding_size, term.queue_size))

    def compare_pair(self, place: int, student: Sequence[Tensor], teacher: Sequence[Tensor], told: Told) -> Tensor:
        mine_BD, theirs_BE = self.pooled(student[0], teacher[0], told)
        keys_B = _keys(told.batch).to(mine_BD.device)
        labels_B = keys_B if self.negatives == "other_sample" else _labels(told.batch)
        contrast = cast(_Contrast, self.contrasts[place])
        values_B = contrast(mine_BD, theirs_BE, keys_B, labels_B, self.temperature)
        if self.training:
            contrast.remember(theirs_BE, keys_B, labels_B)
        return (told.weights_B * values_B).sum() / max(1, len(values_B))

    def between(self) -> list[str]:
        contrasts = [cast(_Contrast, contrast) for contrast in self.contrasts]
        return [f"{describe(c.student)}, teacher {describe(c.teacher)}" for c in contrasts]


class _Contrast(nn.Module):
    """The embeddings and the queue of one pair of layers."""

    queue_KE: Tensor
    keys_K: Tensor
    labels_K: Tensor
    next: Tensor

    def __init__(self, student: int, teacher: int, size: int, places: int):
        super().__init__()
        self.student, self.teacher = LinearProjector(student, size), LinearProjector(teacher, size)
        self.register_buffer("queue_KE", torch.zeros(places, teacher))
        self.register_buffer("keys_K", torch.full((places,), EMPTY))
        self.register_buffer("labels_K", torch.full((places,), EMPTY))
        self.register_buffer("next", torch.zeros((), dtype=torch.long))

    def forward(
        self, mine_BD: Tensor, theirs_BE: Tensor, keys_B: Tensor, labels_B: Tensor, temperature: float
    ) -> Tensor:
        """Each sample's value, [B]."""
        all_ME = torch.cat([theirs_BE, self.queue_KE.to(theirs_BE.dtype)])  # a copy: the queue moves on
        scores_BM = unit(self.student(mine_BD)) @ unit(self.teacher(all_ME)).T / temperature
        keys_M, labels_M = torch.cat([keys_B, self.keys_K]), torch.cat([labels_B, self.labels_K])
        own_BM = torch.eye(len(keys_B), len(keys_M), dtype=torch.bool, device=keys_B.device)
        # Neither the same sample from an earlier epoch nor one of the same class is a negative.
        same_BM = (keys_B[:, None] == keys_M) | (labels_B[:, None] == labels_M) | (keys_M == EMPTY)
        scores_BM = scores_BM.masked_fill(same_BM & ~own_BM, float("-inf"))
        return -torch.log_softmax(scores_BM, dim=1).diagonal()

    @torch.no_grad()
    def remember(self, theirs_BE: Tensor, keys_B: Tensor, labels_B: Tensor) -> None:
        """Put samples into the queue in place of the oldest."""
        size = len(self.queue_KE)
        theirs_BE, keys_B, labels_B = (x[-size:] if size else x[:0] for x in (theirs_BE, keys_B, labels_B))
        where_B = (self.next + torch.arange(len(keys_B), device=keys_B.device)) % max(1, size)
        self.queue_KE[where_B] = theirs_BE.to(self.queue_KE.dtype)
        self.keys_K[where_B], self.labels_K[where_B] = keys_B, labels_B
        self.next.copy_((self.next + len(keys_B)) % max(1, size))


def _keys(batch: Batch) -> Tensor:
    """A number for each sample that is the same in every run, [B], not negative."""
    digests = (hashlib.blake2b(name.encode(), digest_size=8).digest() for name in batch.ids)
    return torch.tensor([int.from_bytes(digest) >> 1 for digest in digests], dtype=torch.long)


def _labels(batch: Batch) -> Tensor:
    if batch.labels.ndim != 1:
        raise RecipeError(
            "samples of other classes are asked for, and samples have no class",
            got=f"labels of shape {list(batch.labels.shape)}",
            fix="negatives: other_sample",
        )
    return batch.labels
