"""Before the first step: find the layers that terms compare, see their shapes, build what stands between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from limbeck.alignment.layers import match_layers
from limbeck.core.errors import RecipeError
from limbeck.core.types import Batch, Needs
from limbeck.models.heads import signal
from limbeck.objectives import Layer, Objective, Pair
from limbeck.objectives.base import BatchTerm, FeatureLoss

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from limbeck.training.distiller import Distiller


@torch.no_grad()
def find_pairs(
    student: PreTrainedModel, teacher: PreTrainedModel | None, terms: Sequence[Objective], batch: Batch
) -> dict[str, list[Pair]]:
    """By label of a term, the layers that it reads, with their shapes as a pass over `batch` shows them.

    Args:
        student: the model that learns.
        teacher: the model whose layers are read; None where there is none that runs here.
        terms: a stage's objectives.
        batch: a few samples; `batch.teacher` if the teacher reads other ids.

    Raises:
        ModelError: a layer is not there, or gives nothing.
        RecipeError: a term reads a teacher's layers and there is no teacher; or numbers of layers differ.
    """
    found: dict[str, list[tuple[tuple[str, tuple[str, ...]], tuple[str, tuple[str, ...]] | None]]] = {}
    for term in terms:
        if not isinstance(term, BatchTerm):
            continue
        if teacher is None and any(theirs is not None for _, theirs in term.pairs()):
            raise RecipeError(f"the term '{term.label}' reads a teacher's layers, but there is no model to read")
        names = match_layers(student, teacher, term.pairs())
        found[term.label] = [
            (
                (mine, term.taps(mine, student)),
                None if theirs is None or teacher is None else (theirs, term.taps(theirs, teacher)),
            )
            for mine, theirs in names
        ]
    read = [pair for pairs in found.values() for pair in pairs]
    shapes = _shapes(student, batch, {tap for (_, taps), _ in read for tap in taps})
    told = {tap for _, theirs in read if theirs is not None for tap in theirs[1]}
    their_shapes = {} if teacher is None else _shapes(teacher, batch.teacher or batch, told)

    def layer(model: PreTrainedModel, path: str, taps: tuple[str, ...], seen: Mapping[str, torch.Size]) -> Layer:
        return Layer(path, taps, tuple(seen[tap] for tap in taps), model.config)

    return {
        label: [
            Pair(
                layer(student, *mine, shapes),
                None if theirs is None or teacher is None else layer(teacher, *theirs, their_shapes),
            )
            for mine, theirs in pairs
        ]
        for label, pairs in found.items()
    }


def _shapes(model: PreTrainedModel, batch: Batch, taps: set[str]) -> dict[str, torch.Size]:
    if not taps:
        return {}
    training = model.training
    model.eval()
    try:
        features = signal(model, batch, Needs(features=frozenset(taps))).features
    finally:
        model.train(training)
    return {path: tensor.shape for path, tensor in features.items()}


def match_table(distiller: Distiller) -> list[dict[str, str]]:
    """One row per pair of layers: term, student's layer and shape, teacher's, and what stands between."""
    rows = []
    for label, pairs in distiller.layers.items():
        loss = distiller.losses[label]
        between = loss.between() if isinstance(loss, FeatureLoss) else []
        for i, pair in enumerate(pairs):
            rows.append(
                {
                    "term": label,
                    "student": pair.student.path,
                    "student shape": _shape(pair.student),
                    "teacher": "" if pair.teacher is None else pair.teacher.path,
                    "teacher shape": "" if pair.teacher is None else _shape(pair.teacher),
                    "between": between[i] if i < len(between) else "none",
                }
            )
    return rows


def _shape(layer: Layer) -> str:
    """Sizes after the batch's."""
    return ", ".join(" x ".join(str(n) for n in shape[1:]) for shape in dict.fromkeys(layer.shapes))
