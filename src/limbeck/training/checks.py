"""What in a stage can be known not to work before its first step."""

from __future__ import annotations

from torch import nn

from limbeck.core.errors import RecipeError
from limbeck.core.recipe import Stage, Training
from limbeck.core.types import Batch
from limbeck.objectives.base import BatchTerm
from limbeck.training.balance import group_of
from limbeck.training.distiller import Distiller
from limbeck.training.engine import micro_batch, processes


def check_packing(stage: Stage, distiller: Distiller, batch: Batch) -> None:
    """Refuse, before the first step, what needs one sample a row where samples are packed.

    Args:
        stage: what is trained.
        distiller: its terms.
        batch: any batch of the stage.

    Raises:
        RecipeError: a gate, a gradient penalty, `prune` by `taylor` or a term compares or weighs samples as wholes.
    """
    by_slopes = stage.prune is not None and stage.prune.importance == "taylor"
    asking = {"gate": stage.gate is not None, "gradient_penalty": bool(stage.gradient_penalty), "prune": by_slopes}
    names = [name for name, there in asking.items() if there]
    names += [term.label for term in distiller.terms if isinstance(term, BatchTerm) and not term.packs]
    if names:
        batch.one_a_row(f"stage {stage.name}: {', '.join(names)}")


def check_stage(stage: Stage, distiller: Distiller, training: Training) -> None:
    """Refuse what would fail, or be something else than was asked for.

    Raises:
        RecipeError: a gradient penalty, a balance, a plateau, a gate or checkpointing does not fit stage or student.
    """
    where, student = f"stage {stage.name}", distiller.student
    if stage.gradient_penalty:
        if training.precision != "fp32":
            what = f"{where}: a gradient penalty is a difference too small for {training.precision}"
            raise RecipeError(what, fix="training.precision=fp32")
        norms = [name for name, m in student.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        if keeping := [*norms, *(name for name, _ in distiller.losses.named_buffers())]:
            raise RecipeError(
                f"{where}: a gradient penalty runs the loss three times, so it may keep nothing between batches",
                got=keeping[0],
                fix="gradient_penalty=0, or a student without batch norm and terms without a queue",
            )
    if stage.balance is not None:
        groups = {group_of(term) for term in distiller.terms}
        ends = [weight for term in distiller.terms for weight in (term.weight(0.0), term.weight(1.0))]
        if min(ends) < 0 or not all(max(pair) for pair in zip(ends[::2], ends[1::2], strict=True)):
            raise RecipeError(f"{where}: a balance needs weights of at least zero, and none that is zero all along")
        if not sum(getattr(stage.balance, group) for group in groups):
            raise RecipeError(f"{where}: the balance gives nothing to the terms that are there", got=sorted(groups))
    waiting = [term.label for term in distiller.terms if term.weight.type() == "plateau"]
    if waiting and not distiller.asks_student.dist:
        raise RecipeError(
            f"{where}: no term reads answers, so validation says nothing of its progress and no plateau ever comes",
            got=f"{waiting[0]} with weight plateau",
            fix="weight: {type: linear, start: 1, end: 0}, or a term on answers, such as cross_entropy",
        )
    if training.gradient_checkpointing and not student.supports_gradient_checkpointing:
        raise RecipeError(
            f"{type(student).__name__} cannot compute activations again", fix="training.gradient_checkpointing=false"
        )
    alone = micro_batch(stage, processes().num_processes, where) == 1
    if stage.gate is not None and stage.gate.share is not None and alone:
        raise RecipeError(
            f"{where}: the hardest share of a micro-batch of one sample is that sample",
            fix="more samples in a forward pass (global_batch_size, per_device_train_batch_size), or gate.threshold",
        )
