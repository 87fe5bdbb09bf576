"""What every distribution term must compute, written down a second time: naive, dense, float64, row by row.

A new term needs an entry here; `test_objectives.py` runs it through the whole contract.

Shapes: N rows, V classes, S classes that student and teacher share.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass
class Rows:
    """What a formula reads: the student's logits over all classes, both models' over the shared ones, the labels."""

    student_NV: Tensor
    student_NS: Tensor
    teacher_NS: Tensor
    labels_N: Tensor
    columns_N: Tensor
    """The labels' places among the shared classes."""


Oracle = Callable[[Any, Rows], Tensor]
"""(part, rows) -> values [N]."""


def softmax(logits: Tensor, temperature: float | Tensor = 1.0) -> Tensor:
    """exp / sum of exp; good enough for the logits that oracles are asked about."""
    powers = torch.exp(logits / temperature)
    return powers / powers.sum(1, keepdim=True)


def temperature_of(part: Any, rows: Rows) -> Tensor:
    """The temperature of every row, [N, 1], at the beginning of a stage."""
    found, kind = part.temperature, part.temperature.type()
    if kind == "fixed":
        return torch.full_like(rows.teacher_NS[:, :1], found.value)
    if kind == "scheduled":
        return torch.full_like(rows.teacher_NS[:, :1], found.value(0.0))
    assert kind == "per_sample", f"no oracle for the temperature '{kind}'"
    values = []
    for row in (rows.teacher_NS if found.of == "teacher" else rows.student_NS).detach().tolist():
        mean = sum(row) / len(row)
        std = math.sqrt(sum((value - mean) ** 2 for value in row) / len(row))
        spread = std if found.by == "std" else max(row) - mean
        values.append([min(found.high, max(found.low, found.factor * spread))])
    return rows.teacher_NS.new_tensor(values)


def both(part: Any, rows: Rows) -> tuple[Tensor, Tensor, Tensor]:
    """T [N], and the probabilities of teacher and student at it."""
    t = temperature_of(part, rows)
    return t.squeeze(1), softmax(rows.teacher_NS, t), softmax(rows.student_NS, t)


def _kl(p: Tensor, q: Tensor) -> Tensor:
    return (torch.xlogy(p, p) - p * torch.log(q)).sum(-1)


def cross_entropy(part: Any, rows: Rows) -> Tensor:
    count = rows.student_NV.shape[1]
    target_NV = torch.full_like(rows.student_NV, part.label_smoothing / count)
    for row, label in enumerate(rows.labels_N.tolist()):
        target_NV[row, label] += 1 - part.label_smoothing
    return -(target_NV * torch.log(softmax(rows.student_NV))).sum(1)


def kl(part: Any, rows: Rows) -> Tensor:
    t, p, q = both(part, rows)
    return t**2 * _kl(p, q)


def reverse_kl(part: Any, rows: Rows) -> Tensor:
    t, p, q = both(part, rows)
    return t**2 * _kl(q, p)


def jensen_shannon(part: Any, rows: Rows) -> Tensor:
    t, p, q = both(part, rows)
    middle = part.beta * p + (1 - part.beta) * q
    return t**2 * (part.beta * _kl(p, middle) + (1 - part.beta) * _kl(q, middle))


def total_variation(part: Any, rows: Rows) -> Tensor:
    t, p, q = both(part, rows)
    return t * torch.abs(p - q).sum(1) / 2


def skew_kl(part: Any, rows: Rows) -> Tensor:
    t, p, q = both(part, rows)
    return t**2 * _kl(p, part.skew * p + (1 - part.skew) * q)


def skew_reverse_kl(part: Any, rows: Rows) -> Tensor:
    t, p, q = both(part, rows)
    return t**2 * _kl(q, (1 - part.skew) * p + part.skew * q)


def adaptive_kl(part: Any, rows: Rows) -> Tensor:
    t, p, q = both(part, rows)
    shares = []
    for sure, unsure in zip(p.tolist(), q.detach().tolist(), strict=True):
        likeliest = sorted(range(len(sure)), key=lambda v, sure=sure: -sure[v])
        head, held = likeliest[:1], sure[likeliest[0]]
        for v in likeliest[1:]:
            held += sure[v]
            if held > part.head:
                break
            head.append(v)
        gaps = [abs(a - b) for a, b in zip(sure, unsure, strict=True)]
        shares.append(sum(gaps[v] for v in head) / sum(gaps) if sum(gaps) else 0.0)
    share = p.new_tensor(shares)
    return t**2 * (share * _kl(p, q) + (1 - share) * _kl(q, p))


def dkd(part: Any, rows: Rows) -> Tensor:
    t, p, q = both(part, rows)
    values = []
    for row, label in enumerate(rows.columns_N.tolist()):
        others = [v for v in range(p.shape[1]) if v != label]
        if not others:
            values.append(0 * q[row].sum())
            continue
        pair_p = torch.stack([p[row, label], p[row, others].sum()])
        pair_q = torch.stack([q[row, label], q[row, others].sum()])
        rest = _kl(p[row, others] / p[row, others].sum(), q[row, others] / q[row, others].sum())
        values.append(part.alpha * _kl(pair_p, pair_q) + part.beta * rest)
    return t**2 * torch.stack(values)


def pearson(left: Tensor, right: Tensor) -> Tensor:
    """Pearson's correlation of two vectors; 0 where one of them does not vary."""
    left, right = left - left.mean(), right - right.mean()
    return (left * right).sum() / torch.sqrt(((left**2).sum() + 1e-16) * ((right**2).sum() + 1e-16))


def dist(part: Any, rows: Rows) -> Tensor:
    _, p, q = both(part, rows)
    return torch.stack([1 - pearson(p[row], q[row]) for row in range(len(p))])


def standardized_kl(part: Any, rows: Rows) -> Tensor:
    t = temperature_of(part, rows)

    def probabilities(logits: Tensor) -> Tensor:
        centred = logits - logits.mean(1, keepdim=True)
        return softmax(centred / torch.sqrt((centred**2).mean(1, keepdim=True) + 1e-12), t)

    return t.squeeze(1) ** 2 * _kl(probabilities(rows.teacher_NS), probabilities(rows.student_NS))


def mixed_target(part: Any, rows: Rows) -> Tensor:
    t, p, q = both(part, rows)
    hard = torch.zeros_like(p)
    for row, label in enumerate(rows.columns_N.tolist()):
        hard[row, label] = 1
    return t**2 * _kl(part.hard_share * hard + (1 - part.hard_share) * p, q)


def weighted_kl(part: Any, rows: Rows) -> Tensor:
    t, p, q = both(part, rows)
    if part.by == "entropy":
        plain = softmax(rows.student_NV).detach()
        weight = -(plain * torch.log(plain)).sum(1) / math.log(plain.shape[1])
    else:
        at = torch.arange(len(p))
        student = -torch.log(softmax(rows.student_NS))[at, rows.columns_N].detach()
        teacher = -torch.log(softmax(rows.teacher_NS))[at, rows.columns_N]
        weight = 1 - torch.exp(-student / (teacher + 1e-7))
    return weight * t**2 * _kl(p, q)


ORACLES: dict[str, Oracle] = {
    each.__name__: each
    for each in (
        adaptive_kl,
        cross_entropy,
        dist,
        dkd,
        jensen_shannon,
        kl,
        mixed_target,
        reverse_kl,
        skew_kl,
        skew_reverse_kl,
        standardized_kl,
        total_variation,
        weighted_kl,
    )
}


def naive(
    part: Any, student: Tensor, teacher: Tensor, labels: Tensor, *, shared: Tensor | None = None, keep: int = -100
) -> Tensor:
    """The sum of a term over its valid rows, from all logits at once; differentiable."""
    valid = labels.flatten() != keep
    student_NV, labels_N = student.flatten(0, -2)[valid], labels.flatten()[valid]
    teacher_NU = teacher.flatten(0, -2)[valid]
    if shared is None:
        return ORACLES[part.type()](part, Rows(student_NV, student_NV, teacher_NU, labels_N, labels_N)).sum()
    places = {int(v): column for column, v in enumerate(shared)}
    columns_N = torch.tensor([places.get(int(v), 0) for v in labels_N], dtype=torch.long)
    return ORACLES[part.type()](
        part, Rows(student_NV, student_NV[:, shared], teacher_NU[:, shared], labels_N, columns_N)
    ).sum()
