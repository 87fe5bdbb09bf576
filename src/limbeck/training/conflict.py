"""Whether the terms of a stage pull the same way: each one's own gradient, its norm, and the cosines between them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from limbeck.core.errors import RecipeError
from limbeck.core.types import Batch, Signal
from limbeck.training.step import Teacher, count_units

if TYPE_CHECKING:
    from accelerate import Accelerator

    from limbeck.training.distiller import Distiller


def term_gradients(
    distiller: Distiller,
    teacher: Teacher | None,
    accelerator: Accelerator,
    batch: Batch,
    weights: Sequence[float],
    progress: float,
) -> dict[str, Any]:
    """Norms and cosines of the weighted terms' gradients at the student's parameters, on one batch, without dropout.

    Nothing of the training changes: no gradient is kept, and no random number is drawn from its stream.

    Args:
        distiller: student and terms, bare; it is left in evaluation mode.
        teacher: None where no term asks for one.
        accelerator: the engine.
        batch: a micro-batch of this process.
        weights: the terms' weights now; terms that weigh nothing are left out.
        progress: share of the stage that is done.

    Returns:
        `norms`, by term; `cosines`, a list of [term, other term, cosine] for terms whose gradients are not zero.

    Raises:
        RecipeError: the parameters are spread over processes.

    Reference:
        Yu et al., Gradient Surgery for Multi-Task Learning, 2020, arXiv:2001.06782.
    """
    if accelerator.distributed_type.value in ("FSDP", "DEEPSPEED"):
        what = "the terms' gradients cannot be compared where parameters are spread over processes"
        raise RecipeError(what, got=accelerator.distributed_type.value, fix="leave out training.gradient_cosine_steps")
    units = count_units(accelerator, [batch])
    learned = [p for p in distiller.student.parameters() if p.requires_grad]
    found: dict[str, list[Tensor | None]] = {}
    distiller.eval()
    with torch.random.fork_rng():
        told = Signal() if teacher is None else teacher.signal(batch, distiller.asks_teacher)
        for i, (term, weight) in enumerate(zip(distiller.terms, weights, strict=True)):
            if weight and units[term.unit]:
                alone = [weight / units[term.unit] if i == j else 0.0 for j in range(len(weights))]
                with accelerator.autocast():
                    loss, _ = distiller(batch, told, alone, progress)
                found[term.label] = list(torch.autograd.grad(loss, learned, allow_unused=True))
    norms = {label: _dot(own, own) ** 0.5 for label, own in found.items()}
    cosines = [
        [one, other, _dot(found[one], found[other]) / (norms[one] * norms[other])]
        for one, other in combinations(found, 2)
        if norms[one] * norms[other] > 0
    ]
    return {"norms": norms, "cosines": cosines}


def _dot(one: Sequence[Tensor | None], other: Sequence[Tensor | None]) -> float:
    parts = [
        (a.double() * b.double()).sum() for a, b in zip(one, other, strict=True) if a is not None and b is not None
    ]
    return float(torch.stack(parts).sum()) if parts else 0.0
