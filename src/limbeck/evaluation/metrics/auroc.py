"""How well the probabilities tell the classes apart, at whatever threshold."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from scipy.stats import rankdata

from limbeck.core.parts import part
from limbeck.evaluation.book import Book
from limbeck.evaluation.metrics._base import OfEach
from limbeck.evaluation.predictions import Predictions
from limbeck.evaluation.statistics import bounded_mean


@part
class Auroc(OfEach):
    """The area under the ROC curve: of two classes that of the second, of more the mean of each against the rest.

    AUC = P(a row of the class is given more than one of another), ties counting half. The interval resamples each
    row's part in it (DeLong's components), which needs no sorting anew. Classes without rows are left out.

    Reference:
        DeLong et al., Comparing the Areas under Two or More Correlated Receiver Operating Characteristic Curves, 1988.
    """

    wants: ClassVar[tuple[str, ...]] = ("probabilities", "target")

    def fits(self, table: Predictions) -> bool:
        return table.classes is not None and super().fits(table) and len(set(table["target"])) > 1

    def one(self, book: Book, name: str, table: Predictions) -> None:
        given, targets = table.probabilities, table.targets
        classes = [1] if given.shape[1] == 2 else sorted(set(targets.tolist()))
        parts = [parts_of_auc(given[:, c], targets == c) for c in classes]
        book.estimate(name, "accuracy", "auroc", "share", bounded_mean, np.mean(parts, axis=0))


def parts_of_auc(given: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """A column whose mean is the AUC, and whose resampled means spread as the AUC does.

    Args:
        given: scores, [n].
        positive: which rows are of the class, [n]; some are, and some are not.
    """
    n, ones = len(given), int(positive.sum())
    ranks = rankdata(given)
    own = np.empty(n)
    own[positive], own[~positive] = rankdata(given[positive]), rankdata(given[~positive])
    # Of a row of the class: the share of the others below it; of another row: the share of the class above it.
    won = np.where(positive, (ranks - own) / (n - ones), 1 - (ranks - own) / ones)
    area = won[positive].mean()
    found: np.ndarray = area + (won - area) * n / np.where(positive, ones, n - ones)
    return found
