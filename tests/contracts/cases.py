"""Terms, models and small helpers for the contract of the distribution terms.

Shapes: B batch, T positions, D hidden width, V classes of the student.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from limbeck.core.parts import build, find, names
from limbeck.core.types import Dense, Dist, Head
from limbeck.objectives import DistributionTerm, distribution_loss

B, T, D, V = 2, 4, 3, 7
LABELS = torch.tensor([[1, -100, 0, 6], [-100, 2, -100, 5]])  # 5 valid rows
PER_ROW = {"type": "per_sample", "factor": 1.5, "low": 0.5}
TRIED: dict[str, tuple[Any, ...]] = {
    "alpha": (0.3,),
    "beta": (0.1, 0.9),
    "by": ("entropy",),
    "hard_share": (0.8,),
    "head": (0.8,),
    "label_smoothing": (0.1,),
    "skew": (0.6,),
    "temperature": (0.5, PER_ROW),
}
"""Values that a field of this name is tried with, besides its default."""
NOT_ZERO = {"mixed_target": "its target is a mixture of the teacher and the label"}
"""Terms that do not vanish where student and teacher are the same, and why."""
WEIGHED = {
    "adaptive_kl": "the shares of head and tail carry no gradient",
    "weighted_kl": "the rows' weights carry no gradient",
}
"""Terms whose gradient is not that of their value, on purpose, so that gradcheck cannot pass; oracles tell it."""
READS_LABELS = {"dkd", "mixed_target", "weighted_kl"}
"""Terms that compare the teacher with the true class, which must then be among the shared ones."""

NAMES = [n for n in names("objective") if issubclass(find("objective", n), DistributionTerm)]
TERMS = [build("objective", {"type": name}) for name in NAMES]
DIVERGENCES = [term for term in TERMS if term.asks_teacher]


def variants(parts: list[Any]) -> list[Any]:
    """Every part with its defaults, and with each field that has other values to try."""
    found = []
    for part in parts:
        own = [each.name for each in fields(part) if each.name in TRIED]
        choices: list[dict[str, Any]] = [{}, *({name: value} for name in own for value in TRIED[name])]
        for choice in choices:
            named = [f"{k}={v['type'] if isinstance(v, dict) else v}" for k, v in choice.items()]
            found.append(pytest.param(replace(part, **choice), id="-".join([part.type(), *named])))
    return found


every_term = pytest.mark.parametrize("term", TERMS, ids=NAMES)
every_divergence = pytest.mark.parametrize("term", DIVERGENCES, ids=[term.type() for term in DIVERGENCES])
every_variant = pytest.mark.parametrize("term", variants(TERMS))
both_kinds = pytest.mark.parametrize("kind", ["head", "dense"])


@dataclass
class Case:
    """A student and a teacher of one batch, both as heads; teacher and student differ in width and bias."""

    hidden: Tensor
    weight: Tensor
    bias: Tensor
    teacher_hidden: Tensor
    teacher_weight: Tensor

    def leaves(self) -> list[Tensor]:
        return [self.hidden, self.weight, self.bias]

    def logits(self) -> Tensor:
        return self.hidden @ self.weight.T + self.bias

    def told(self) -> Tensor:
        return self.teacher_hidden @ self.teacher_weight.T

    def student(self, kind: str) -> Dist:
        return Head(self.hidden, self.weight, self.bias) if kind == "head" else Dense(self.logits())

    def teacher(self, kind: str) -> Dist:
        return Head(self.teacher_hidden, self.teacher_weight) if kind == "head" else Dense(self.told())


def case(dtype: torch.dtype = torch.float64, seed: int = 0, rows: int = V, columns: int = D, batch: int = B) -> Case:
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw, dtype=torch.float64).to(dtype)

    made = Case(normal(batch, T, columns), normal(rows, columns), normal(rows), normal(batch, T, 5), normal(rows, 5))
    for leaf in made.leaves():
        leaf.requires_grad_()
    return made


def run(term: Any, student: Dist, teacher: Dist | None, labels: Tensor = LABELS, **more: Any) -> Tensor:
    return distribution_loss(student, teacher, labels, [term], [1.0], **more)[0]


def gradients(loss: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    return list(torch.autograd.grad(loss, leaves))


def close(found: Any, wanted: Any, **more: Any) -> None:
    torch.testing.assert_close(found, wanted, **more)
