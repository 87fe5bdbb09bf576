"""Forward and reverse Kullback-Leibler divergence, shared out by where the two models differ."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from limbeck.core.parts import part
from limbeck.objectives.chunked import Chunk
from limbeck.objectives.temperature import Tempered, per_row


@part
class AdaptiveKL(Tempered):
    """Adaptive KL: forward KL where the student misses the teacher's head, reverse KL where it misses the tail.

    T^2 (h KL(p || q) + (1 - h) KL(q || p)), p the teacher, q the student. h is the head's share in
    sum_v |p[v] - q[v]|, without gradient; the head are the teacher's likeliest classes while their probabilities
    sum up to no more than `head`, and always the first of them.

    Reference:
        Wu et al., Rethinking Kullback-Leibler Divergence in Knowledge Distillation for Large Language Models, 2024,
        arXiv:2404.02657.
    """

    head: float = Field(default=0.5, gt=0, lt=1)
    """Probability that the teacher's head holds."""

    @property
    def needs_all_classes(self) -> bool:
        return True

    def rows(self, chunk: Chunk) -> Tensor:
        t = self.at(chunk)
        student_NS, teacher_NS = chunk.student(t), chunk.teacher(t)
        share_N = self._share(student_NS.detach().exp(), teacher_NS.exp())
        forward_N = (teacher_NS.exp() * (teacher_NS - student_NS)).sum(1)
        reverse_N = (student_NS.exp() * (student_NS - teacher_NS)).sum(1)
        return per_row(t) ** 2 * (share_N * forward_N + (1 - share_N) * reverse_N)

    def _share(self, student_NS: Tensor, teacher_NS: Tensor) -> Tensor:
        """The head's share in all that the two differ by, [N]; 0 where they are the same."""
        ranked_NS, order_NS = teacher_NS.sort(dim=1, descending=True)
        gaps_NS = (ranked_NS - student_NS.gather(1, order_NS)).abs()
        in_head_NS = ranked_NS.cumsum(1) <= self.head
        in_head_NS[:, 0] = True
        return (gaps_NS * in_head_NS).sum(1) / gaps_NS.sum(1).clamp(min=torch.finfo(gaps_NS.dtype).tiny)
