"""Likelihoods of stretches of text, for models with different tokenizers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from limbeck.core.parts import part
from limbeck.core.types import IGNORE, Unit
from limbeck.objectives.base import BatchTerm, Context, FeatureLoss, Pair
from limbeck.objectives.likelihood import label_log_probs


@part
class LikelihoodMatching(BatchTerm):
    """Match how likely student and teacher hold each stretch of text that both tokenizers cut out alike.

    T sum_k n_k KL(b(P_k) || b(Q_k)), with P_k and Q_k the teacher's and the student's probability of stretch k (the
    product over its tokens), both to the power 1/T, b(p) the distribution (p, 1 - p), and n_k the student's tokens in
    it, by their weights. The factor T keeps the gradient's size, as the likelihoods' logs are divided by T. Zero where
    both hold every stretch equally likely. The batch says which stretch each label belongs to (`Batch.spans`); labels
    of none do not count.

    Reference:
        Minixhofer et al., Universal Cross-Tokenizer Distillation via Approximate Likelihood Matching, 2025,
        arXiv:2503.20083.
    """

    temperature: float = Field(default=1.0, gt=0)
    """Softens the likelihoods of stretches; above 1, unlikely ones count more."""
    longest: int = Field(default=8, gt=0)
    """Stretches with more tokens than this are left out."""

    asks_teacher: ClassVar[bool] = True
    unit: ClassVar[Unit] = "label"
    reads_dist: ClassVar[bool] = True
    matches_text: ClassVar[bool] = True

    @property
    def reads_labels(self) -> bool:
        return True

    def build(self, pairs: Sequence[Pair]) -> FeatureLoss:
        return _Matching(self.temperature)


class _Matching(FeatureLoss):
    def __init__(self, temperature: float):
        super().__init__()
        self.temperature = temperature

    def forward(
        self, student: Sequence[Sequence[Tensor]], teacher: Sequence[Sequence[Tensor]], context: Context
    ) -> Tensor:
        batch, read = context.batch, context.batch.teacher
        assert batch.spans is not None, "spans come with a codec that reads a text with both tokenizers"
        assert read is not None
        assert read.spans is not None
        assert context.said is not None
        assert context.told is not None
        mine = label_log_probs(context.said, batch.labels)
        with torch.no_grad():
            theirs = label_log_probs(context.told, read.labels).to(mine.dtype)
        width = int(max(batch.spans.max(), read.spans.max())) + 1
        ones = torch.ones_like(mine)
        valid = batch.labels != IGNORE
        counts_N = ones if batch.weights is None else batch.weights[valid].to(mine.dtype)
        sums = _by_span(mine, batch.labels, batch.spans, width)
        counts = _by_span(counts_N, batch.labels, batch.spans, width)
        told = _by_span(theirs, read.labels, read.spans, width)
        both = _by_span(ones, batch.labels, batch.spans, width) > 0
        both &= _by_span(torch.ones_like(theirs), read.labels, read.spans, width) > 0
        values = counts[both] * self._divergence(sums[both] / self.temperature, told[both] / self.temperature)
        if context.weights is not None:
            values = values * context.weights[both.nonzero()[:, 0]]
        return self.temperature * values.sum() + 0.0 * mine.sum()

    @staticmethod
    def _divergence(mine: Tensor, told: Tensor) -> Tensor:
        """KL between (p, 1 - p) and (q, 1 - q) from log p and log q."""
        # At q = 1 the other side has no mass and no finite logarithm; the nearest float below is as good. The gradient
        # goes on as if nothing were cut, or a student that is sure and wrong would never hear of it.
        limit = -torch.finfo(mine.dtype).eps
        mine = mine + (mine.clamp(max=limit) - mine).detach()
        told = told.clamp(max=limit)
        rest, told_rest = torch.log(-torch.expm1(mine)), torch.log(-torch.expm1(told))
        return told.exp() * (told - mine) + told_rest.exp() * (told_rest - rest)


def _by_span(values_N: Tensor, labels: Tensor, spans: Tensor, width: int) -> Tensor:
    """The sum over the labels of every stretch of every sample, [B, width]."""
    valid = labels != IGNORE
    rows, numbers = valid.nonzero()[:, 0], spans[valid]
    inside = numbers >= 0
    place = rows[inside] * width + numbers[inside]
    return values_N.new_zeros(len(labels) * width).index_add(0, place, values_N[inside]).reshape(len(labels), width)
