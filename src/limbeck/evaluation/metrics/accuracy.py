"""The share of right answers."""

from __future__ import annotations

from typing import ClassVar

from limbeck.core.parts import part
from limbeck.evaluation.book import Book
from limbeck.evaluation.metrics._base import Metric, Tables
from limbeck.evaluation.statistics import mean


@part
class Accuracy(Metric):
    """The share of right answers: `accuracy`, or `answer_accuracy` where answers were read out of a text.

    It has one name for all models: that some of them have recorded their answers alone does not part them.
    """

    wants: ClassVar[tuple[str, ...]] = ("correct",)

    def measure(self, book: Book, tables: Tables) -> None:
        title = "answer_accuracy" if any("text" in table for table in tables.models.values()) else "accuracy"
        for name, table in tables.models.items():
            if self.fits(table):
                book.estimate(name, "accuracy", title, "share", mean, table.correct)
