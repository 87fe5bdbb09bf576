"""Generalised Jensen-Shannon divergence."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from limbeck.core.parts import part
from limbeck.objectives._base import DistributionTerm
from limbeck.objectives._chunked import Chunk


@part
class JensenShannon(DistributionTerm):
    """Generalised Jensen-Shannon divergence: between forward KL (small beta) and reverse KL (large beta).

    T^2 (b KL(p || m) + (1 - b) KL(q || m)) with m = b p + (1 - b) q, p the teacher and q the student.
    Bounded, so that one hopeless token cannot rule a batch. Divided by b it tends to forward KL for b -> 0.

    Reference:
        Agarwal et al., On-Policy Distillation of Language Models, 2023, arXiv:2306.13649.
    """

    beta: float = Field(default=0.5, gt=0, lt=1)
    """Weight of the teacher in the mixture."""
    temperature: float = Field(default=1.0, gt=0)
    """Softens both distributions; 1 leaves them as they are."""

    asks_teacher: ClassVar[bool] = True

    def rows(self, chunk: Chunk) -> Tensor:
        student_NS, teacher_NS = chunk.student(self.temperature), chunk.teacher(self.temperature)
        mixture_NS = torch.logaddexp(teacher_NS + math.log(self.beta), student_NS + math.log1p(-self.beta))
        from_teacher_N = (teacher_NS.exp() * (teacher_NS - mixture_NS)).sum(1)
        from_student_N = (student_NS.exp() * (student_NS - mixture_NS)).sum(1)
        return self.temperature**2 * (self.beta * from_teacher_N + (1 - self.beta) * from_student_N)
