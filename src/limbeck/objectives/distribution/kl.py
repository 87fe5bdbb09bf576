"""Forward Kullback-Leibler divergence."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from limbeck.core.parts import part
from limbeck.objectives.chunked import Chunk
from limbeck.objectives.temperature import Tempered, per_row


@part
class KL(Tempered):
    """Forward KL, T^2 KL(teacher || student): the student covers all that the teacher holds likely.

    T^2 sum_v p[v] (log p[v] - log q[v]), p and q the softmax of teacher's and student's logits / T. The
    factor keeps the gradient's size about equal over temperatures.

    Reference:
        Hinton et al., Distilling the Knowledge in a Neural Network, 2015, arXiv:1503.02531.
    """

    linear_in_teacher: ClassVar[bool] = True

    def rows(self, chunk: Chunk) -> Tensor:
        t = self.at(chunk)
        student_NS, teacher_NS = chunk.student(t), chunk.teacher(t)
        return per_row(t) ** 2 * (teacher_NS.exp() * (teacher_NS - student_NS)).sum(1)

    def slopes(self, chunk: Chunk, scale_N1: Tensor, out_NV: Tensor | None) -> Tensor | None:
        t = self.at(chunk)
        if not chunk.comparable(t):
            return None
        student, teacher = chunk.soft_student(t), chunk.soft_teacher(t)
        gap_NS = torch.sub(teacher.scaled_NV, student.scaled_NV, out=chunk.spare("gap", student.exp_NV))
        values_N = torch.linalg.vecdot(teacher.exp_NV, gap_NS) / teacher.total_N1.squeeze(1)
        values_N = values_N + (student.log_sum_N1 - teacher.log_sum_N1).squeeze(1)
        if out_NV is not None:
            out_NS = chunk.common(out_NV)
            out_NS.addcmul_(student.exp_NV, scale_N1 * t / student.total_N1)
            out_NS.addcmul_(teacher.exp_NV, -scale_N1 * t / teacher.total_N1)
        return per_row(t) ** 2 * values_N
