"""What each term weighs in a step: its own schedule, and the stage's balance between outputs and layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch

from limbeck.core.errors import TrainingError
from limbeck.core.recipe import Balance
from limbeck.core.types import Batch, Signal
from limbeck.objectives import DistributionTerm, Objective
from limbeck.training.step import Teacher, count_units

if TYPE_CHECKING:
    from accelerate import Accelerator

    from limbeck.training.checkpoint import Progress
    from limbeck.training.distiller import Distiller


def group_of(term: Objective) -> Literal["output", "intermediate"]:
    """Whether a term looks at what the models answer, or at what is inside of them."""
    return "output" if isinstance(term, DistributionTerm) or getattr(term, "reads_dist", False) else "intermediate"


def weights_now(terms: Sequence[Objective], balance: Balance | None, done: float, progress: Progress) -> list[float]:
    """The terms' weights in a step.

    With a balance, a term of group g weighs  balance_g / sum balance * w / (sum of W in g) / size,  with w its own
    weight now, W the larger of its weights at the stage's two ends, and size its value on the stage's first batch. So
    a schedule keeps its shape under a balance.

    Args:
        terms: the stage's.
        balance: how the groups weigh; None: the terms' own weights, as they are.
        done: share of the stage.
        progress: validations without a better score, and the terms' sizes.
    """
    own = [term.weight.after(done, progress.stalls) for term in terms]
    if balance is None:
        return own
    assert progress.scales is not None
    groups = [group_of(term) for term in terms]
    parts = {name: getattr(balance, name) for name in groups}
    full = [max(term.weight(0.0), term.weight(1.0)) for term in terms]
    shared = {name: sum(w for w, group in zip(full, groups, strict=True) if group == name) for name in groups}
    return [
        parts[group] / sum(parts.values()) * weight / shared[group] / progress.scales[term.label]
        for term, group, weight in zip(terms, groups, own, strict=True)
    ]


@torch.no_grad()
def term_sizes(
    distiller: Distiller, teacher: Teacher | None, accelerator: Accelerator, batches: Sequence[Batch]
) -> dict[str, float]:
    """Each term's mean on a step's batch, before any of it is learned.

    Raises:
        TrainingError: a term is zero there, and cannot be made equal to the others.
    """
    units = count_units(accelerator, batches)
    sums = torch.zeros(len(distiller.terms), dtype=torch.float64, device=batches[0].labels.device)
    distiller.eval()
    for batch in batches:
        told = Signal() if teacher is None else teacher.signal(batch, distiller.asks_teacher)
        with accelerator.autocast():
            _, values = distiller(batch, told, [1.0] * len(distiller.terms))
        sums += torch.stack([value.double() for value in values.values()])
    sums = accelerator.reduce(sums, "sum")
    sizes = {t.label: abs(float(s)) / units[t.unit] for t, s in zip(distiller.terms, sums, strict=True)}
    if flat := [label for label, size in sizes.items() if size < 1e-12]:
        raise TrainingError(
            f"the term '{flat[0]}' is zero on the first batch, so it cannot be balanced with the others",
            fix="leave out `balance`, or the term",
        )
    return sizes
