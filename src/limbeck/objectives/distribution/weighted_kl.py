"""Forward Kullback-Leibler divergence, more of it for some rows than for others."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from limbeck.core.parts import part
from limbeck.objectives.chunked import Chunk
from limbeck.objectives.distribution._labels import true_classes
from limbeck.objectives.temperature import Tempered, per_row

TINY = 1e-7
"""Added to the teacher's loss, which may be zero."""


@part
class WeightedKL(Tempered):
    """Forward KL with a weight for each row: more where the student still has something to learn.

    w T^2 KL(teacher || student), w without gradient and between 0 and 1, both models at T = 1 in it:
    `loss_ratio` (WSLD): w = 1 - exp(-L_s / L_t), L = -log of the true class's probability. Rows that the student
    knows better than the teacher count little: there the teacher would only regularise.
    `entropy` (DynamicKD): w = -sum_v q[v] log q[v] / log V. Rows that the student is sure of count little.

    Reference:
        Zhou et al., Rethinking Soft Labels for Knowledge Distillation: A Bias-Variance Tradeoff Perspective, 2021,
        arXiv:2102.00650; Li et al., Dynamic Knowledge Distillation for Pre-trained Language Models, 2021,
        arXiv:2109.11295.
    """

    by: Literal["loss_ratio", "entropy"] = "loss_ratio"
    """What the weight is taken from: the losses of both models, or the student's entropy."""

    @property
    def reads_labels(self) -> bool:
        return self.by == "loss_ratio"

    @property
    def needs_all_classes(self) -> bool:
        return self.by == "loss_ratio" or self.temperature.needs_all_classes

    def rows(self, chunk: Chunk) -> Tensor:
        t = self.at(chunk)
        student_NS, teacher_NS = chunk.student(t), chunk.teacher(t)
        weight_N = _backlog(chunk) if self.by == "loss_ratio" else _uncertainty(chunk)
        return weight_N * per_row(t) ** 2 * (teacher_NS.exp() * (teacher_NS - student_NS)).sum(1)


def _backlog(chunk: Chunk) -> Tensor:
    ratio_N1 = _loss(chunk, chunk.student(1.0).detach()) / (_loss(chunk, chunk.teacher(1.0)) + TINY)
    return -(-ratio_N1).expm1().squeeze(1)


def _loss(chunk: Chunk, log_probs_NS: Tensor) -> Tensor:
    """The cross-entropy with the true class, [N, 1]."""
    parts = [-log_probs_NS.gather(1, true_N1) * share_N1 for true_N1, share_N1 in true_classes(chunk)]
    return torch.stack(parts).sum(0)


def _uncertainty(chunk: Chunk) -> Tensor:
    log_probs_NV = chunk.log_probs().detach()
    return -(log_probs_NV.exp() * log_probs_NV).sum(1) / math.log(log_probs_NV.shape[1])
