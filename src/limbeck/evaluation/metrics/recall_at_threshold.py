"""How many rows of a class are found where it is said at a given probability."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field

from limbeck.core.parts import part
from limbeck.evaluation.book import Book
from limbeck.evaluation.metrics._base import OfEach
from limbeck.evaluation.predictions import Predictions
from limbeck.evaluation.statistics import mean


@part
class RecallAtThreshold(OfEach):
    """The share of rows whose right class is given at least `threshold`: `recall_at_threshold`.

    With `positive`, of the rows of that class alone: the recall of a detector that speaks at this probability.
    """

    threshold: float = Field(default=0.5, gt=0, lt=1)
    """The probability from which on a class counts as said."""
    positive: str | None = None
    """The class that is looked for. Left out: every row's own."""

    wants: ClassVar[tuple[str, ...]] = ("probabilities", "target")

    def fits(self, table: Predictions) -> bool:
        if not super().fits(table):
            return False
        has_rows = self.positive is None or self.positive in table["target"]
        return table.classes is not None and has_rows

    def one(self, book: Book, name: str, table: Predictions) -> None:
        assert table.classes is not None
        own = table.probabilities[np.arange(len(table)), table.targets]
        if self.positive is not None:
            own = own[table.targets == table.classes.index(self.positive)]
        found = (own >= self.threshold).astype(float)
        book.estimate(name, "accuracy", "recall_at_threshold", "share", mean, found)
