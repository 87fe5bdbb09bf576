"""Reverse Kullback-Leibler divergence."""

from __future__ import annotations

import torch
from torch import Tensor

from limbeck.core.parts import part
from limbeck.objectives.chunked import Chunk
from limbeck.objectives.temperature import Tempered, per_row


@part
class ReverseKL(Tempered):
    """Reverse KL, T^2 KL(student || teacher): the student keeps to what the teacher holds likely.

    T^2 sum_v q[v] (log q[v] - log p[v]), p and q the softmax of teacher's and student's logits / T.

    Reference:
        Gu et al., MiniLLM: Knowledge Distillation of Large Language Models, 2023, arXiv:2306.08543.
    """

    def rows(self, chunk: Chunk) -> Tensor:
        t = self.at(chunk)
        student_NS, teacher_NS = chunk.student(t), chunk.teacher(t)
        return per_row(t) ** 2 * (student_NS.exp() * (student_NS - teacher_NS)).sum(1)

    def slopes(self, chunk: Chunk, scale_N1: Tensor, out_NV: Tensor | None) -> Tensor | None:
        t = self.at(chunk)
        if not chunk.comparable(t):
            return None
        student, teacher = chunk.soft_student(t), chunk.soft_teacher(t)
        gap_NS = student.log_probs("gap").sub_(teacher.scaled_NV).add_(teacher.log_sum_N1)
        values_N = torch.linalg.vecdot(student.probs_NV, gap_NS)
        if out_NV is not None:
            gap_NS.sub_(values_N[:, None])
            chunk.common(out_NV).addcmul_(student.probs_NV, gap_NS.mul_(scale_N1 * t))
        return per_row(t) ** 2 * values_N
