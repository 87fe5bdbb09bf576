"""What happens inside of models: layers, attention, the way of an answer through the layers, token by token.

What cannot be seen in a model is left out, and said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch

from limbeck.alignment.vocabulary import shared_vocabulary
from limbeck.core.errors import ModelError
from limbeck.core.recipe.evaluate import Interpretability
from limbeck.core.types import Sample
from limbeck.data.draw import subsample
from limbeck.evaluation.book import Book
from limbeck.evaluation.interpretability.divergence import at_tokens
from limbeck.evaluation.interpretability.lens import path_of
from limbeck.evaluation.interpretability.survey import STUDENT, TEACHER, Survey
from limbeck.evaluation.interpretability.view import View, examined, same_tokens
from limbeck.evaluation.served import ServedModel
from limbeck.tasks import Codec
from limbeck.tasks.causal_lm import CausalCodec
from limbeck.teachers.ensemble import EnsembleModel

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from limbeck.evaluation.predict import Measured

__all__ = ["measure"]


@torch.no_grad()
def measure(
    models: Mapping[str, tuple[Measured, Codec]],
    samples: Sequence[Sample],
    plan: Interpretability,
    book: Book,
    *,
    seed: int,
    batch_size: int,
    examples: Sequence[str] = (),
) -> list[str]:
    """Look into models: scores, and the details `cka`, `attention`, `lens` and `divergence`.

    The model named `teacher` is what the others are compared with; the maps in the details are the `student`'s.

    Args:
        models: by name, each with its codec. They are left as they were: mode, attention implementation, hooks.
        samples: rows, of which `plan.max_samples` are drawn.
        plan: how many rows.
        book: takes the figures.
        seed: draws the rows.
        batch_size: the most rows at a time; of long ones fewer are taken.
        examples: ids of rows to look at one by one, `plan.examples` of them; left out: the first that are drawn.

    Returns:
        What could not be measured, a line each.
    """
    drawn = [samples[i] for i in subsample(range(len(samples)), plan.max_samples, count=len(samples), seed=seed)]
    close = [s.id for s in drawn if not examples] + [s.id for s in samples if s.id in set(examples)]
    known = {sample.id: sample for sample in (*drawn, *(s for s in samples if s.id in set(close)))}
    notes: list[str] = []
    with ExitStack() as stack:
        views: dict[str, View] = {}
        for name, (model, codec) in models.items():
            if isinstance(model, ServedModel):
                notes.append(f"layers of {name}: {model.engine} does not show them")
                continue
            if isinstance(model, EnsembleModel):
                notes.append(f"of the {len(model.models)} models of {name}, the first one alone is looked into")
                model = model.teacher.model
            stack.enter_context(examined(model))
            if (view := _view(name, model, codec, list(known.values()), notes)) is not None:
                views[name] = view
        if TEACHER not in views:
            notes.append("CKA, attention agreement and divergence: there is no teacher to look into")
        ids, close = (
            [i for i in some if all(i in view.features for view in views.values())]
            for some in ([s.id for s in drawn], close)
        )
        if ids:
            survey = Survey(views, ids, notes)
            survey.run(batch_size)
            survey.write(book)
        else:
            notes.append("layers and attention: there is no row that all models can read")
        _look_closer(views, close[: plan.examples], book, notes)
    return notes


def _view(name: str, model: PreTrainedModel, codec: Codec, samples: Sequence[Sample], notes: list[str]) -> View | None:
    try:
        view = View(name, model, codec, samples)
    except ModelError as error:
        notes.append(f"layers of {name}: {error.what}")
        return None
    view.find_maps()
    if view.features and len(view.places) < len(view.layers):
        found = f"{len(view.places) or 'none'} of its {len(view.layers)} layers"
        notes.append(f"attention of {view.called}: {found} gave a map of all positions")
    return view


def _look_closer(views: Mapping[str, View], ids: Sequence[str], book: Book, notes: list[str]) -> None:
    """The details `lens` and `divergence`, row by row."""
    lens: list[dict[str, Any]] = []
    for view in views.values():
        try:
            lens += [{"id": i, "model": view.name, "layers": path_of(view, i)} for i in ids]
        except ModelError as error:
            notes.append(f"logit lens of {view.called}: {error.what}")
    if lens:
        book.details["lens"] = lens
    if STUDENT in views and TEACHER in views and isinstance(views[STUDENT].codec, CausalCodec) and ids:
        try:
            book.details["divergence"] = _divergence(views[STUDENT], views[TEACHER], ids)
        except ModelError as error:
            notes.append(f"divergence of student and teacher: {error.what}")


def _divergence(student: View, teacher: View, ids: Sequence[str]) -> list[dict[str, Any]]:
    if not same_tokens(student, teacher, ids):
        raise ModelError("they read the rows as other tokens")
    sides = [(view.codec.processor, len(view.model.get_output_embeddings().weight)) for view in (student, teacher)]
    shared = shared_vocabulary(*sides[0], *sides[1], (student.called, teacher.called))
    return [at_tokens(student, teacher, i, shared.ids) for i in ids]
