"""One optimizer step, on one page."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch

from limbeck.core.errors import TrainingError
from limbeck.core.types import IGNORE, Batch, Needs, Signal

if TYPE_CHECKING:
    from accelerate import Accelerator

    from limbeck.training.distiller import Distiller


class Teacher(Protocol):
    """Whatever can tell something of a batch."""

    provides: Needs

    def signal(self, batch: Batch, needs: Needs) -> Signal:
        """What is asked for, without gradients."""
        ...


@dataclass(frozen=True)
class Told:
    """What a step says of itself: means per unit, over all processes."""

    loss: float
    terms: dict[str, float]
    grad_norm: float
    units: int


def optimizer_step(
    accelerator: Accelerator,
    wrapped: Any,
    distiller: Distiller,
    teacher: Teacher | None,
    optimizer: Any,
    batches: Sequence[Batch],
    *,
    weights: Sequence[float],
    max_grad_norm: float,
) -> Told:
    """Forward and backward over all micro-batches, then clip and step.

    The number of units is counted over micro-batches and processes before the first forward pass, and the sum
    of every term is divided by it exactly once. So the gradient is the same however a batch is split.

    Args:
        accelerator: the engine.
        wrapped: the distiller as the engine prepared it; it is what is called.
        distiller: the same, bare.
        teacher: None where no term asks for one.
        optimizer: over the distiller's parameters.
        batches: this process's micro-batches; every process has as many.
        weights: the terms' weights now.
        max_grad_norm: bound on the gradient's norm.

    Raises:
        TrainingError: nothing to learn in the batch, or loss or gradient are not finite.
    """
    units = int(accelerator.reduce(torch.stack([(b.labels != IGNORE).sum() for b in batches]).sum(), "sum"))
    if not units:
        raise TrainingError("a batch holds no label to learn from", got=f"samples {', '.join(batches[0].ids[:3])}, ...")
    factor = accelerator.num_processes / units  # the engine averages gradients over processes
    total: Any = 0.0
    sums: list[Any] = [0.0] * len(weights)
    for i, batch in enumerate(batches):
        last = i == len(batches) - 1
        with nullcontext() if last else accelerator.no_sync(wrapped):
            told = Signal() if teacher is None else teacher.signal(batch, distiller.asks_teacher)
            loss, values = wrapped(batch, told, weights)
            accelerator.backward(loss * factor)
            total += loss.detach()
            sums = [a + b for a, b in zip(sums, values.values(), strict=True)]
    figures = accelerator.reduce(torch.stack([total, *sums]), "sum") / units
    norm = accelerator.clip_grad_norm_(distiller.parameters(), max_grad_norm)
    if not (torch.isfinite(figures[0]) and torch.isfinite(norm)):
        what = "loss" if not torch.isfinite(figures[0]) else "gradient"
        raise TrainingError(
            f"the {what} is not finite",
            got=f"loss {figures[0]:.4g}, gradient norm {norm:.4g}, samples {', '.join(batches[0].ids[:3])}, ...",
            fix="a lower learning_rate, a longer warmup_ratio, or precision: fp32",
        )
    optimizer.step()
    optimizer.zero_grad()
    terms = {term.label: value.item() for term, value in zip(distiller.terms, figures[1:], strict=True)}
    return Told(figures[0].item(), terms, norm.item(), units)
