"""Skewed forward Kullback-Leibler divergence."""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor

from limbeck.core.parts import part
from limbeck.objectives.chunked import Chunk
from limbeck.objectives.temperature import Tempered, per_row


@part
class SkewKL(Tempered):
    """Skewed forward KL: the student is mixed with some of the teacher before it is compared.

    T^2 KL(p || a p + (1 - a) q), p the teacher, q the student, a the skew. Never above T^2 log 1/a, with gradients
    that stay small where the student holds something unlikely that the teacher does not. a = 0 would be forward KL.

    Reference:
        Ko et al., DistiLLM: Towards Streamlined Distillation for Large Language Models, 2024, arXiv:2402.03898.
    """

    skew: float = Field(default=0.1, gt=0, lt=1)
    """Share of the teacher in the mixture."""

    def rows(self, chunk: Chunk) -> Tensor:
        t = self.at(chunk)
        student_NS, teacher_NS = chunk.student(t), chunk.teacher(t)
        mixture_NS = torch.logaddexp(teacher_NS + math.log(self.skew), student_NS + math.log1p(-self.skew))
        return per_row(t) ** 2 * (teacher_NS.exp() * (teacher_NS - mixture_NS)).sum(1)
