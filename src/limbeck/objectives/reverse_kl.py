"""Reverse Kullback-Leibler divergence."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from limbeck.core.parts import part
from limbeck.objectives._base import DistributionTerm
from limbeck.objectives._chunked import Chunk


@part
class ReverseKL(DistributionTerm):
    """Reverse KL, T^2 KL(student || teacher): the student keeps to what the teacher holds likely.

    T^2 sum_v q[v] (log q[v] - log p[v]), p and q the softmax of teacher's and student's logits / T.

    Reference:
        Gu et al., MiniLLM: Knowledge Distillation of Large Language Models, 2023, arXiv:2306.08543.
    """

    temperature: float = Field(default=1.0, gt=0)
    """Softens both distributions; 1 leaves them as they are."""

    asks_teacher: ClassVar[bool] = True

    def rows(self, chunk: Chunk) -> Tensor:
        student_NS, teacher_NS = chunk.student(self.temperature), chunk.teacher(self.temperature)
        return self.temperature**2 * (student_NS.exp() * (student_NS - teacher_NS)).sum(1)
