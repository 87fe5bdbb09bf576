"""What every objective must compute, written down a second time: naive, dense, float64, one class at a time.

A new objective needs an entry here; `test_objectives.py` runs it through the whole contract.

Shapes: N rows, V classes, S classes that student and teacher share.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Oracle = Callable[[Any, Tensor, Tensor, Tensor, Tensor], Tensor]
"""(part, student logits [N, V], student logits [N, S], teacher logits [N, S], labels [N]) -> values [N]."""


def softmax(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """exp / sum of exp; good enough for the logits that oracles are asked about."""
    powers = torch.exp(logits / temperature)
    return powers / powers.sum(1, keepdim=True)


def _kl(p: Tensor, q: Tensor) -> Tensor:
    return (p * torch.log(p / q)).sum(1)


def cross_entropy(part: Any, student_NV: Tensor, student_NS: Tensor, teacher_NS: Tensor, labels_N: Tensor) -> Tensor:
    count = student_NV.shape[1]
    target_NV = torch.full_like(student_NV, part.label_smoothing / count)
    for row, label in enumerate(labels_N.tolist()):
        target_NV[row, label] += 1 - part.label_smoothing
    return -(target_NV * torch.log(softmax(student_NV))).sum(1)


def kl(part: Any, student_NV: Tensor, student_NS: Tensor, teacher_NS: Tensor, labels_N: Tensor) -> Tensor:
    q, p = softmax(student_NS, part.temperature), softmax(teacher_NS, part.temperature)
    return part.temperature**2 * _kl(p, q)


def reverse_kl(part: Any, student_NV: Tensor, student_NS: Tensor, teacher_NS: Tensor, labels_N: Tensor) -> Tensor:
    q, p = softmax(student_NS, part.temperature), softmax(teacher_NS, part.temperature)
    return part.temperature**2 * _kl(q, p)


def jensen_shannon(part: Any, student_NV: Tensor, student_NS: Tensor, teacher_NS: Tensor, labels_N: Tensor) -> Tensor:
    q, p = softmax(student_NS, part.temperature), softmax(teacher_NS, part.temperature)
    middle = part.beta * p + (1 - part.beta) * q
    return part.temperature**2 * (part.beta * _kl(p, middle) + (1 - part.beta) * _kl(q, middle))


def total_variation(part: Any, student_NV: Tensor, student_NS: Tensor, teacher_NS: Tensor, labels_N: Tensor) -> Tensor:
    q, p = softmax(student_NS, part.temperature), softmax(teacher_NS, part.temperature)
    return part.temperature * torch.abs(p - q).sum(1) / 2


ORACLES: dict[str, Oracle] = {
    "cross_entropy": cross_entropy,
    "jensen_shannon": jensen_shannon,
    "kl": kl,
    "reverse_kl": reverse_kl,
    "total_variation": total_variation,
}


def naive(
    part: Any, student: Tensor, teacher: Tensor, labels: Tensor, *, shared: Tensor | None = None, keep: int = -100
) -> Tensor:
    """The sum of an objective over its valid rows, from all logits at once; differentiable."""
    valid = labels.flatten() != keep
    student_NV = student.flatten(0, -2)[valid]
    teacher_NU = teacher.flatten(0, -2)[valid]
    student_NS = student_NV if shared is None else student_NV[:, shared]
    teacher_NS = teacher_NU if shared is None else teacher_NU[:, shared]
    return ORACLES[part.type()](part, student_NV, student_NS, teacher_NS, labels.flatten()[valid]).sum()
