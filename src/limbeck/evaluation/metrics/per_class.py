"""Precision and recall of every class."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from sklearn.metrics import precision_recall_fscore_support

from limbeck.core.parts import part
from limbeck.evaluation.book import Book
from limbeck.evaluation.metrics._base import OfEach
from limbeck.evaluation.predictions import Predictions


@part
class PerClass(OfEach):
    """Precision, recall and F1 of every class, in `details/classes.json`; 0 where there is nothing to divide by."""

    wants: ClassVar[tuple[str, ...]] = ("prediction", "target")

    def fits(self, table: Predictions) -> bool:
        return table.classes is not None and super().fits(table)

    def one(self, book: Book, name: str, table: Predictions) -> None:
        assert table.classes is not None
        place = {each: i for i, each in enumerate(table.classes)}
        said = np.asarray([place.get(each, -1) for each in table["prediction"]])
        figures = precision_recall_fscore_support(table.targets, said, labels=range(len(place)), zero_division=0)
        found = book.details.setdefault("classes", [])
        for each, i in place.items():
            precision, recall, f1, n = (column[i] for column in figures)
            shares = {"precision": float(precision), "recall": float(recall), "f1": float(f1)}
            counts = {"n": int(n), "predicted": int((said == i).sum())}
            found.append({"model": name, "class": each, **counts, **shares})
