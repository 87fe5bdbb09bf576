"""Scores: every metric that fits, of every model, from recorded predictions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from limbeck.core.parts import build, names
from limbeck.core.recipe import Evaluate
from limbeck.evaluation.book import Book
from limbeck.evaluation.metrics._base import Metric, Tables
from limbeck.evaluation.predictions import Predictions, aligned


def score(
    models: Mapping[str, Predictions],
    plan: Evaluate,
    book: Book,
    validation: Mapping[str, Predictions] | None = None,
    draws: Mapping[str, Predictions] | None = None,
) -> list[str]:
    """Write all figures of the recorded predictions of several models into a book.

    Args:
        models: `teacher` and `baseline` are what others are compared with; any other names may be there.
        plan: which metrics; all that fit where it names none.
        book: takes the figures.
        validation: predictions of other rows, by which something may be fitted.
        draws: several answers to each sample, of models whose table has but one.

    Returns:
        What is to be noted: metrics that were asked for, and fit no model.

    Raises:
        DataError: the models did not answer the same samples.
    """
    tables = Tables(aligned(models), {**_drawn(models), **(draws or {})}, validation or {})
    chosen = [build("metric", name) for name in names("metric")] if plan.metrics is None else plan.metrics
    notes = []
    for metric in chosen:
        own = Book(plan)
        cast(Metric, metric).measure(own, tables)
        if plan.metrics is not None and not own.scores and not own.details:
            notes.append(f"the metric '{metric.type()}' fits the predictions of no model")
        book.take(own)
    return notes


def _drawn(models: Mapping[str, Predictions]) -> dict[str, Predictions]:
    return {name: table for name, table in models.items() if table.first is not table}
