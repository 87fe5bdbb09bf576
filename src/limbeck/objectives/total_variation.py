"""Total variation distance."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from limbeck.core.parts import part
from limbeck.objectives._base import DistributionTerm
from limbeck.objectives._chunked import Chunk


@part
class TotalVariation(DistributionTerm):
    """Total variation distance, symmetric and bounded by T.

    T/2 sum_v |p[v] - q[v]|, p and q the softmax of teacher's and student's logits / T. Its gradient shrinks
    with 1/T and not with 1/T^2 as that of a KL does, hence the factor T.

    Reference:
        Wen et al., f-Divergence Minimization for Sequence-Level Knowledge Distillation, 2023, arXiv:2307.15190.
    """

    temperature: float = Field(default=1.0, gt=0)
    """Softens both distributions; 1 leaves them as they are."""

    asks_teacher: ClassVar[bool] = True

    def rows(self, chunk: Chunk) -> Tensor:
        student_NS, teacher_NS = chunk.student(self.temperature), chunk.teacher(self.temperature)
        return self.temperature / 2 * (teacher_NS.exp() - student_NS.exp()).abs().sum(1)
