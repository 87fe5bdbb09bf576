"""Tables of predictions that are made up, with what is known of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from limbeck.core.recipe import Evaluate
from limbeck.evaluation.book import Book
from limbeck.evaluation.predictions import Predictions
from limbeck.evaluation.scores import score

CLASSES = ("ant", "bee", "cat", "dog", "eel", "fox")


def classifier(n: int = 600, skill: float = 3.0, seed: int = 0, sharpened: float = 1.0, **columns: Any) -> Predictions:
    """A classifier whose probabilities are honest: classes are drawn from them, then sharpened.

    Args:
        n: rows.
        skill: spread of the logits.
        seed: of the draws; the right classes depend on it and on the skill.
        sharpened: logits are multiplied by this after the classes were drawn.
        columns: more of them.
    """
    draw = np.random.default_rng(seed)
    logits = draw.normal(size=(n, len(CLASSES))) * skill
    given = np.exp(logits - logits.max(1, keepdims=True))
    given /= given.sum(1, keepdims=True)
    targets = [int(draw.choice(len(CLASSES), p=row)) for row in given]
    given = given**sharpened
    given /= given.sum(1, keepdims=True)
    return of_probabilities(given, targets, **columns)


def of_probabilities(given: np.ndarray, targets: Sequence[int], **columns: Any) -> Predictions:
    best = given.argmax(1).tolist()
    return Predictions(
        {
            "id": [f"test/{i}" for i in range(len(given))],
            "target": [CLASSES[i] for i in targets],
            "prediction": [CLASSES[i] for i in best],
            "correct": [i == j for i, j in zip(best, targets, strict=True)],
            "confidence": given.max(1).tolist(),
            "probabilities": given.tolist(),
            **columns,
        },
        CLASSES[: given.shape[1]],
    )


def answers(said: Sequence[str | None], right: Sequence[str], **columns: Any) -> Predictions:
    """Final answers without classes."""
    correct = [a == b for a, b in zip(said, right, strict=True)]
    ids = [f"test/{i}" for i in range(len(right))]
    return Predictions(
        {"id": ids, "target": list(right), "prediction": list(said), "correct": correct, **columns}, None
    )


def measured(models: Mapping[str, Predictions], *metrics: Any, **options: Any) -> Book:
    """A book with the figures of some metrics, or of all."""
    plan = Evaluate(resamples=options.pop("resamples", 200), metrics=list(metrics) or None)
    book = Book(plan)
    score(models, plan, book, **options)
    return book


def value(book: Book, model: str, name: str) -> float:
    found = [each.value for each in book.scores if (each.model, each.name) == (model, name)]
    assert len(found) == 1, f"{model} has {len(found)} scores '{name}'"
    return found[0]
