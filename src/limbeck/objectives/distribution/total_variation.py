"""Total variation distance."""

from __future__ import annotations

import torch
from torch import Tensor

from limbeck.core.parts import part
from limbeck.objectives.chunked import Chunk
from limbeck.objectives.temperature import Tempered, per_row


@part
class TotalVariation(Tempered):
    """Total variation distance, symmetric and bounded by T.

    T/2 sum_v |p[v] - q[v]|, p and q the softmax of teacher's and student's logits / T. Its gradient shrinks
    with 1/T and not with 1/T^2 as that of a KL does, hence the factor T.

    Reference:
        Wen et al., f-Divergence Minimization for Sequence-Level Knowledge Distillation, 2023, arXiv:2307.15190.
    """

    def rows(self, chunk: Chunk) -> Tensor:
        t = self.at(chunk)
        student_NS, teacher_NS = chunk.student(t), chunk.teacher(t)
        return per_row(t) / 2 * (teacher_NS.exp() - student_NS.exp()).abs().sum(1)

    def slopes(self, chunk: Chunk, scale_N1: Tensor, out_NV: Tensor | None) -> Tensor | None:
        t = self.at(chunk)
        if not chunk.comparable(t):
            return None
        student_NS, teacher_NS = chunk.soft_student(t).probs_NV, chunk.soft_teacher(t).probs_NV
        gap_NS = torch.sub(student_NS, teacher_NS, out=chunk.spare("gap", student_NS))
        values_N = torch.linalg.vector_norm(gap_NS, ord=1, dim=1)
        if out_NV is not None:
            gap_NS.sign_()
            gap_NS.sub_(torch.linalg.vecdot(student_NS, gap_NS)[:, None])
            chunk.common(out_NV).addcmul_(student_NS, gap_NS.mul_(scale_N1 / 2))
        return per_row(t) / 2 * values_N
