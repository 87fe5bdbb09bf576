"""Divergence from a mixture of teacher and true label."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from limbeck.core.parts import part
from limbeck.objectives.chunked import Chunk
from limbeck.objectives.distribution._labels import true_classes
from limbeck.objectives.temperature import Tempered, per_row


@part
class MixedTarget(Tempered):
    """Forward KL from a mixture of teacher and true label: a teacher that errs is put right, row by row.

    T^2 KL(m || q) with m = h 1[y] + (1 - h) p, p and q the softmax of teacher's and student's logits / T. At T = 1
    its gradient is that of `cross_entropy` with weight h and `kl` with weight 1 - h; above, the label is learned at
    T as well. Of samples that were blended of two, 1[y] is shared out between both labels.

    Reference:
        Hinton et al., Distilling the Knowledge in a Neural Network, 2015, arXiv:1503.02531 (both targets, with
        weights).
    """

    hard_share: float = Field(default=0.3, ge=0, le=1)
    """Share of the true label in the target."""

    @property
    def reads_labels(self) -> bool:
        return True

    @property
    def needs_all_classes(self) -> bool:
        return True

    def rows(self, chunk: Chunk) -> Tensor:
        t = self.at(chunk)
        student_NS, teacher_NS = chunk.student(t), chunk.teacher(t)
        target_NS = (1 - self.hard_share) * teacher_NS.exp()
        for true_N1, share_N1 in true_classes(chunk):
            target_NS.scatter_add_(1, true_N1, self.hard_share * share_N1 * torch.ones_like(target_NS[:, :1]))
        return per_row(t) ** 2 * (torch.xlogy(target_NS, target_NS) - target_NS * student_NS).sum(1)
