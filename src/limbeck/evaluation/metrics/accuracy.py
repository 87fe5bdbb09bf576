"""The share of right answers."""

from __future__ import annotations

from typing import ClassVar

from limbeck.core.parts import part
from limbeck.evaluation.book import Book
from limbeck.evaluation.metrics._base import OfEach
from limbeck.evaluation.predictions import Predictions
from limbeck.evaluation.statistics import mean


@part
class Accuracy(OfEach):
    """The share of right answers: `accuracy`, or `answer_accuracy` where the answer was read out of a text."""

    wants: ClassVar[tuple[str, ...]] = ("correct",)

    def one(self, book: Book, name: str, table: Predictions) -> None:
        title = "answer_accuracy" if "text" in table else "accuracy"
        book.estimate(name, "accuracy", title, "share", mean, table.correct)
