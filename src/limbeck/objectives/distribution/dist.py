"""Correlation of probabilities over the classes of a row."""

from __future__ import annotations

from torch import Tensor

from limbeck.core.parts import part
from limbeck.objectives.chunked import Chunk
from limbeck.objectives.temperature import Tempered

TINY = 1e-16
"""Added to squared norms: a row of equal probabilities has none."""


@part
class DIST(Tempered):
    """DIST, inter-class: one minus the correlation of student and teacher over the classes.

    1 - sum_v (p[v] - 1/V)(q[v] - 1/V) / (|p - 1/V| |q - 1/V|), p and q the softmax of teacher's and student's
    logits / T. The student may be less sure than the teacher, if it is so everywhere alike. A correlation does not
    shrink with T, hence no factor T^2. The paper adds the same over the samples of each class: `dist_intra`.

    Reference:
        Huang et al., Knowledge Distillation from A Stronger Teacher, 2022, arXiv:2205.10536.
    """

    @property
    def needs_all_classes(self) -> bool:
        return True

    def rows(self, chunk: Chunk) -> Tensor:
        t = self.at(chunk)
        student_NS, teacher_NS = chunk.student(t).exp(), chunk.teacher(t).exp()
        return 1 - correlation(student_NS, teacher_NS, dim=1)


def correlation(left: Tensor, right: Tensor, dim: int) -> Tensor:
    """Pearson's correlation along a dimension."""
    return (_unit(left, dim) * _unit(right, dim)).sum(dim)


def _unit(values: Tensor, dim: int) -> Tensor:
    """Centred, and of length 1."""
    centred = values - values.mean(dim, keepdim=True)
    return centred * (centred.square().sum(dim, keepdim=True) + TINY).rsqrt()
