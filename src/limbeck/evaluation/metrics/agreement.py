"""Which answers a model shares with the teacher, the wrong ones among them."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from limbeck.core.parts import part
from limbeck.evaluation.book import Book
from limbeck.evaluation.metrics._base import AgainstTeacher
from limbeck.evaluation.predictions import Predictions
from limbeck.evaluation.statistics import mean


@part
class Agreement(AgainstTeacher):
    """The shares of rows on which a model answers as the teacher, repeats its error, or makes one of its own.

    `agreement_with_teacher`; `inherited_errors`: both give the same wrong answer; `new_errors`: the teacher is right
    and the model is not. `details/errors.json` counts all ways in which two answers can be right or wrong. Two answers
    that could not be read do not agree on anything.
    """

    wants: ClassVar[tuple[str, ...]] = ("prediction", "correct")

    def pair(self, book: Book, name: str, table: Predictions, teacher: Predictions) -> None:
        pairs = zip(table["prediction"], teacher["prediction"], strict=True)
        same = np.asarray([a == b and a is not None for a, b in pairs])
        mine, its = table.correct > 0, teacher.correct > 0
        kinds = {
            "both_right": mine & its,
            "inherited": ~mine & ~its & same,
            "other_wrong": ~mine & ~its & ~same,
            "new": ~mine & its,
            "mended": mine & ~its,
        }
        shares = {
            "agreement_with_teacher": same,
            "inherited_errors": kinds["inherited"],
            "new_errors": kinds["new"],
        }
        for title, rows in shares.items():
            book.estimate(name, "agreement", title, "share", mean, rows.astype(float))
        counts = {kind: int(rows.sum()) for kind, rows in kinds.items()}
        book.details.setdefault("errors", {})[name] = {**counts, "n": len(table)}
