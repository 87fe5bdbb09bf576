"""Pruning at the beginning of a stage: what the stage's loss would miss least goes, the stage teaches the rest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from limbeck.core.types import Batch, Signal
from limbeck.models.shrink.prune import Masks, Sizes
from limbeck.training.distiller import Distiller
from limbeck.training.step import Teacher, count_units

if TYPE_CHECKING:
    from accelerate import Accelerator


def taylor(
    distiller: Distiller,
    teacher: Teacher | None,
    accelerator: Accelerator,
    steps: Iterable[list[Batch]],
    left: Sizes,
    weights: Sequence[float],
) -> dict[str, Tensor]:
    """How much the stage's loss would change without each head and unit, to first order.

        I_h = sum_x | dL(x) / d xi_h |,   xi_h = 1 a factor at what head (or unit) h writes

    Without dropout. In fp16 the loss is scaled, as it is in training, and by less where a slope overflows.

    Args:
        distiller: student and terms, bare; it is left in evaluation mode.
        teacher: None where no term asks for one.
        accelerator: the engine; its processes look at their own micro-batches and add up.
        steps: of some steps, the micro-batches of this process.
        left: the names of what is cut, as keys.
        weights: the terms', as they are when the stage begins.

    Returns:
        [layers, heads] and [layers, units] by these names, on the CPU.

    Reference:
        Michel et al., Are Sixteen Heads Really Better than One?, 2019, arXiv:1905.10650; Molchanov et al., Pruning
        Convolutional Neural Networks for Resource Efficient Inference, 2016, arXiv:1611.06440 (Taylor).
    """
    masks = Masks(distiller.student, left)
    sums: dict[str, Tensor] = {}
    distiller.eval()
    for batches in steps:
        units = count_units(accelerator, batches)
        shares = [w / units[t.unit] if units[t.unit] else 0.0 for w, t in zip(weights, distiller.terms, strict=True)]
        for batch in batches:
            told = Signal() if teacher is None else teacher.signal(batch, distiller.asks_teacher)
            for kind, slope in _slopes(distiller, accelerator, (batch, told, shares), masks).items():
                sums[kind] = sums.get(kind, torch.zeros_like(slope)) + slope
    return {kind: accelerator.reduce(total, "sum").cpu() for kind, total in sums.items()}


def _slopes(
    distiller: Distiller, accelerator: Accelerator, call: tuple[Any, ...], masks: Masks
) -> Mapping[str, Tensor]:
    """The slopes of one micro-batch."""
    scale = 1.0 if accelerator.scaler is None else float(accelerator.scaler.get_scale())
    while True:
        with masks.there():
            with accelerator.autocast():
                loss, _ = distiller(*call)
            found = masks.slopes(loss * scale)
        if scale <= 1.0 or all(torch.isfinite(slope).all() for slope in found.values()):
            return {kind: slope / scale for kind, slope in found.items()}
        scale /= 2
