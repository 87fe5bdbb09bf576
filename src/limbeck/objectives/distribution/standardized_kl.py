"""Forward Kullback-Leibler divergence of standardised logits."""

from __future__ import annotations

import torch
from torch import Tensor

from limbeck.core.parts import part
from limbeck.objectives.chunked import Chunk
from limbeck.objectives.temperature import Tempered, per_row

TINY = 1e-12
"""Added to the variance: equal logits have none."""


@part
class StandardizedKL(Tempered):
    """Forward KL of standardised logits: the student learns how logits relate, not how large they are.

    T^2 KL(softmax(Z(z_t) / T) || softmax(Z(z_s) / T)), Z(z) = (z - mean) / std over the row's classes (the variance
    divided by V). Gradients flow through the student's mean and std, as in the paper, which takes T = 2 and weighs the
    term more than a plain KL, to make up for the smaller gradient.

    Reference:
        Sun et al., Logit Standardization in Knowledge Distillation, 2024, arXiv:2403.01427.
    """

    @property
    def needs_all_classes(self) -> bool:
        return True

    def rows(self, chunk: Chunk) -> Tensor:
        t = self.at(chunk)
        # Log-probabilities are logits minus a constant, which standardisation takes away.
        student_NS = torch.log_softmax(_standardize(chunk.student(1.0)) / t, dim=1)
        teacher_NS = torch.log_softmax(_standardize(chunk.teacher(1.0)) / t, dim=1)
        return per_row(t) ** 2 * (teacher_NS.exp() * (teacher_NS - student_NS)).sum(1)


def _standardize(logits_NS: Tensor) -> Tensor:
    centred_NS = logits_NS - logits_NS.mean(1, keepdim=True)
    return centred_NS * (centred_NS.square().mean(1, keepdim=True) + TINY).rsqrt()
