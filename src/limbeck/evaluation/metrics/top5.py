"""Whether the right class is among the five likeliest."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from limbeck.core.parts import part
from limbeck.evaluation.book import Book
from limbeck.evaluation.metrics._base import OfEach
from limbeck.evaluation.predictions import Predictions
from limbeck.evaluation.statistics import mean


@part
class Top5(OfEach):
    """The share of rows whose right class is among the five likeliest, where there are more classes.

    A class that ties with the right one counts as likelier.
    """

    wants: ClassVar[tuple[str, ...]] = ("probabilities", "target")

    def fits(self, table: Predictions) -> bool:
        return table.classes is not None and len(table.classes) > 5 and super().fits(table)

    def one(self, book: Book, name: str, table: Predictions) -> None:
        given = table.probabilities
        own = given[np.arange(len(given)), table.targets]
        above = (given >= own[:, None]).sum(1)  # itself among them
        book.estimate(name, "accuracy", "top5_accuracy", "share", mean, (above <= 5).astype(float))
