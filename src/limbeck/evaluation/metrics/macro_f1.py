"""F1 with every class counting the same."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from limbeck.core.parts import part
from limbeck.evaluation.book import Book
from limbeck.evaluation.metrics._base import OfEach
from limbeck.evaluation.predictions import Predictions
from limbeck.evaluation.statistics import Means


@part
class MacroF1(OfEach):
    """The mean over classes of F1 = 2 TP / (2 TP + FP + FN), of classes that a row has or is said to have.

    With few rows of each class the interval lies low: a resampled table lacks some of them.
    """

    wants: ClassVar[tuple[str, ...]] = ("prediction", "target")

    def fits(self, table: Predictions) -> bool:
        return table.classes is not None and super().fits(table)

    def one(self, book: Book, name: str, table: Predictions) -> None:
        assert table.classes is not None
        names = np.asarray(table.classes)[:, None]
        right, said = (names == np.asarray(table[c], dtype=object) for c in ("target", "prediction"))
        there = (right | said).any(1)
        columns = [row.astype(float) for row in (*right[there], *said[there], *(right & said)[there])]
        book.estimate(name, "accuracy", "macro_f1", "share", Means(_macro_f1), *columns)


def _macro_f1(*means: np.ndarray) -> np.ndarray:
    right, said, both = np.stack(means).reshape(3, len(means) // 3, *np.shape(means[0]))
    below = right + said
    return np.divide(2 * both, below, out=np.zeros_like(below), where=below > 0).mean(0)
