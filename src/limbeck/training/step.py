"""One optimizer step, on one page."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch

from limbeck.core.errors import TrainingError
from limbeck.core.types import IGNORE, Batch, Needs, Signal, Unit
from limbeck.training.penalty import penalised_backward

if TYPE_CHECKING:
    from accelerate import Accelerator
    from transformers import PreTrainedModel

    from limbeck.training.distiller import Distiller


class Teacher(Protocol):
    """Whatever can tell something of a batch."""

    def signal(self, batch: Batch, needs: Needs) -> Signal:
        """What is asked for, without gradients."""
        ...

    def update(self, student: PreTrainedModel) -> None:
        """After a step of the student: a teacher may follow it."""
        ...


@dataclass(frozen=True)
class Told:
    """What a step says of itself: means per unit, over all processes."""

    loss: float
    terms: dict[str, float]
    grad_norm: float
    units: int
    """Labels that were learned from."""
    teacher_share: float | None = None
    """Share of the samples that the teacher was asked about, where a gate decides."""
    skipped: bool = False
    """Whether the loss scaler left the step out, in fp16, since a gradient overflowed."""


@dataclass(frozen=True)
class Now:
    """What a stage has decided about a step.

    Attributes:
        weights: the terms' weights.
        progress: share of the stage that is done.
        max_grad_norm: bound on the gradient's norm.
        gradient_penalty: weight of the loss gradient's norm at the input; see `penalty.py`.
    """

    weights: Sequence[float]
    progress: float
    max_grad_norm: float
    gradient_penalty: float = 0.0


def optimizer_step(
    accelerator: Accelerator,
    wrapped: Any,
    distiller: Distiller,
    teacher: Teacher | None,
    optimizer: Any,
    batches: Sequence[Batch],
    now: Now,
) -> Told:
    """Forward and backward over all micro-batches, then clip and step.

    The units of every kind are counted over micro-batches and processes before the first forward pass, and the sum
    of every term is divided by their number exactly once. So the gradient is the same however a batch is split.

    Args:
        accelerator: the engine.
        wrapped: the distiller as the engine prepared it; it is what is called.
        distiller: the same, bare.
        teacher: None where no term asks for one.
        optimizer: over the distiller's parameters.
        batches: this process's micro-batches; every process has as many.
        now: weights and the like.

    Raises:
        TrainingError: nothing to learn in the batch, or loss or gradient are not finite.
    """
    units = count_units(accelerator, batches)
    wanted = [units[term.unit] for term in distiller.terms]
    if not all(wanted):
        raise TrainingError("a batch holds no label to learn from", got=f"samples {', '.join(batches[0].ids[:3])}, ...")
    # Terms are weighed relative to the first one's units; the common factor stays outside of low precision.
    relative = [weight * wanted[0] / n for weight, n in zip(now.weights, wanted, strict=True)]
    factor = accelerator.num_processes / wanted[0]  # the engine averages gradients over processes
    total: Any = 0.0
    sums: list[Any] = [0.0] * len(wanted)
    asked: float | None = None
    for i, batch in enumerate(batches):
        last = i == len(batches) - 1
        with nullcontext() if last else accelerator.no_sync(wrapped):
            told = Signal() if teacher is None else teacher.signal(batch, distiller.asks_teacher)
            call = (batch, told, relative, now.progress)
            loss, values = _forward_backward(accelerator, wrapped, distiller, call, factor, now.gradient_penalty)
        total += loss.detach() / wanted[0]
        sums = [a + b / n for a, b, n in zip(sums, values.values(), wanted, strict=True)]
        if told.weights is not None:
            asked = (asked or 0.0) + float((told.weights > 0).sum())
    figures = accelerator.reduce(torch.stack([total, *sums]), "sum")
    norm = accelerator.clip_grad_norm_(distiller.parameters(), now.max_grad_norm)
    # In fp16 a gradient that overflows is the scaler's business: it skips the step and scales less.
    if not (torch.isfinite(figures[0]) and (torch.isfinite(norm) or accelerator.scaler is not None)):
        raise _not_finite(figures[0], norm, batches)
    optimizer.step()
    optimizer.zero_grad()
    terms = {term.label: value.item() for term, value in zip(distiller.terms, figures[1:], strict=True)}
    share = None
    if asked is not None:
        share = float(accelerator.reduce(torch.tensor(asked, device=norm.device), "sum")) / units["sample"]
    # Not `optimizer_step_was_skipped`: a fused AdamW is called in any case and leaves the step out by itself.
    skipped = accelerator.scaler is not None and not bool(torch.isfinite(norm))
    return Told(figures[0].item(), terms, norm.item(), round(units["label"]), share, skipped)


def _forward_backward(
    accelerator: Accelerator, wrapped: Any, distiller: Distiller, call: tuple[Any, ...], factor: float, penalty: float
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    if penalty:
        return penalised_backward(accelerator, wrapped, distiller.student, call, factor, penalty)
    loss, values = wrapped(*call)
    accelerator.backward(loss * factor)
    return loss, values


def count_units(accelerator: Accelerator, batches: Sequence[Batch]) -> dict[Unit, float]:
    """What terms are averaged over, counted over micro-batches and processes."""
    device = batches[0].labels.device
    counts = torch.zeros(4, dtype=torch.float32 if device.type == "mps" else torch.float64, device=device)
    for batch in batches:
        valid = batch.labels != IGNORE
        mask = batch.real
        counts[0] += valid.sum() if batch.weights is None else batch.weights[valid].sum()
        counts[1] += len(batch.ids) if mask is None else mask.sum()
        counts[2] += len(batch.ids)
        counts[3] += 1
    counts = accelerator.reduce(counts, "sum")
    return dict(zip(("label", "position", "sample", "batch"), counts.tolist(), strict=True))


def _not_finite(loss: torch.Tensor, norm: torch.Tensor, batches: Sequence[Batch]) -> TrainingError:
    return TrainingError(
        f"the {'loss' if not torch.isfinite(loss) else 'gradient'} is not finite",
        got=f"loss {loss:.4g}, gradient norm {norm:.4g}, samples {', '.join(batches[0].ids[:3])}, ...",
        fix="a lower learning_rate, a longer warmup_ratio, or precision: fp32",
    )
