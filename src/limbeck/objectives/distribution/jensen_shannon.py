"""Generalised Jensen-Shannon divergence."""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor

from limbeck.core.parts import part
from limbeck.objectives.chunked import Chunk
from limbeck.objectives.temperature import Tempered, per_row


@part
class JensenShannon(Tempered):
    """Generalised Jensen-Shannon divergence: between forward KL (small beta) and reverse KL (large beta).

    T^2 (b KL(p || m) + (1 - b) KL(q || m)) with m = b p + (1 - b) q, p the teacher and q the student.
    Bounded, so that one hopeless token cannot rule a batch. Divided by b it tends to forward KL for b -> 0.

    Reference:
        Agarwal et al., On-Policy Distillation of Language Models, 2023, arXiv:2306.13649.
    """

    beta: float = Field(default=0.5, gt=0, lt=1)
    """Weight of the teacher in the mixture."""

    def rows(self, chunk: Chunk) -> Tensor:
        t = self.at(chunk)
        student_NS, teacher_NS = chunk.student(t), chunk.teacher(t)
        mixture_NS = torch.logaddexp(teacher_NS + math.log(self.beta), student_NS + math.log1p(-self.beta))
        from_teacher_N = (teacher_NS.exp() * (teacher_NS - mixture_NS)).sum(1)
        from_student_N = (student_NS.exp() * (student_NS - mixture_NS)).sum(1)
        return per_row(t) ** 2 * (self.beta * from_teacher_N + (1 - self.beta) * from_student_N)

    def slopes(self, chunk: Chunk, scale_N1: Tensor, out_NV: Tensor | None) -> Tensor | None:
        t = self.at(chunk)
        if not chunk.comparable(t):
            return None
        student, teacher = chunk.soft_student(t), chunk.soft_teacher(t)
        gap_NS = student.log_probs("gap").sub_(teacher.scaled_NV).add_(teacher.log_sum_N1)  # log q - log p
        # log m - log p: as precise as the gap, which the difference of two long logarithms is not.
        above_NS = torch.add(gap_NS, math.log1p(-self.beta), out=chunk.spare("above", gap_NS))
        above_NS = torch.logaddexp(above_NS, above_NS.new_tensor(math.log(self.beta)), out=above_NS)
        from_teacher_N = -torch.linalg.vecdot(teacher.probs_NV, above_NS)
        from_student_N = torch.linalg.vecdot(student.probs_NV, gap_NS.sub_(above_NS))
        if out_NV is not None:
            gap_NS.sub_(from_student_N[:, None])
            chunk.common(out_NV).addcmul_(student.probs_NV, gap_NS.mul_(scale_N1 * t * (1 - self.beta)))
        return per_row(t) ** 2 * (self.beta * from_teacher_N + (1 - self.beta) * from_student_N)
