"""Forward Kullback-Leibler divergence."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from limbeck.core.parts import part
from limbeck.objectives._base import DistributionTerm
from limbeck.objectives._chunked import Chunk


@part
class KL(DistributionTerm):
    """Forward KL, T^2 KL(teacher || student): the student covers all that the teacher holds likely.

    T^2 sum_v p[v] (log p[v] - log q[v]), p and q the softmax of teacher's and student's logits / T. The
    factor keeps the gradient's size about equal over temperatures.

    Reference:
        Hinton et al., Distilling the Knowledge in a Neural Network, 2015, arXiv:1503.02531.
    """

    temperature: float = Field(default=1.0, gt=0)
    """Softens both distributions; 1 leaves them as they are."""

    asks_teacher: ClassVar[bool] = True

    def rows(self, chunk: Chunk) -> Tensor:
        student_NS, teacher_NS = chunk.student(self.temperature), chunk.teacher(self.temperature)
        return self.temperature**2 * (teacher_NS.exp() * (teacher_NS - student_NS)).sum(1)
