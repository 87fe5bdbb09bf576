"""Whether a confidence of 0.8 means that 80 of 100 answers are right.

Shapes: n rows, C classes.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from pydantic import Field
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp, softmax

from limbeck.core.parts import part
from limbeck.evaluation.book import Book
from limbeck.evaluation.metrics._base import Metric, Tables
from limbeck.evaluation.predictions import Predictions
from limbeck.evaluation.statistics import bounded_mean, mean, share_interval

_LEAST = 1e-12
"""Probabilities below count as this: float32 may have rounded them to nothing, and a log needs something."""


@part
class Calibration(Metric):
    """Expected calibration error, Brier score, and the temperature that would mend them.

        ece = sum over bins of n_b / n * |accuracy_b - confidence_b|
        brier = mean over rows of sum over classes of (p_c - [c is right])^2
        temperature = argmin over T of the mean of -log softmax(log p / T)[right]

    Bins are equally wide; a confidence of exactly 1 belongs to the last one. Where there are predictions of the
    validation rows, the temperature is fitted on them; where there are none, on each half of the rows for the other
    half, so that no row is judged by a temperature that has seen it (`temperature` is then their geometric mean).
    `details/reliability.json` says which, and has the bins.

    Reference:
        Guo et al., On Calibration of Modern Neural Networks, 2017, arXiv:1706.04599.
    """

    bins: int = Field(default=15, gt=1)
    """How many, of equal width."""

    wants: ClassVar[tuple[str, ...]] = ("confidence", "correct")

    def measure(self, book: Book, tables: Tables) -> None:
        for name, table in tables.models.items():
            if self.fits(table):
                self._one(book, name, table, tables.validation.get(name))

    def _one(self, book: Book, name: str, table: Predictions, validation: Predictions | None) -> None:
        confidence, correct = table.numbers("confidence"), table.correct
        ece = self._ece(book, name, "ece", confidence, correct)
        found: dict[str, Any] = {"bins": self._reliability(confidence, correct, book.plan.confidence), "ece": ece}
        if table.classes is not None and "probabilities" in table:
            given, targets = table.probabilities, table.targets
            apart = ((given - np.eye(given.shape[1])[targets]) ** 2).sum(1)
            book.estimate(name, "calibration", "brier", "squared", mean, apart)
            if validation is not None or len(table) > 1:
                value, mended, rows = _tempered(given, targets, validation)
                book.exact(name, "calibration", "temperature", "x", value, rows)
                after = self._ece(book, name, "ece_after_temperature", mended, correct)
                where = "validation" if validation is not None else "the other half of the rows"
                found |= {"temperature": value, "ece_after": after, "temperature_fitted_on": where}
        book.details.setdefault("reliability", {})[name] = found

    def _ece(self, book: Book, name: str, title: str, confidence: np.ndarray, correct: np.ndarray) -> float:
        # Each row counts with the sign of its bin's gap: the mean is the ECE, and its spread is that of a mean, where
        # an ECE worked out anew from resampled rows would always be too large.
        gaps, places = confidence - correct, self._places(confidence)
        signs = np.sign(np.bincount(places, gaps, self.bins))
        return book.estimate(name, "calibration", title, "share", bounded_mean, gaps * signs[places]).value

    def _places(self, confidence: np.ndarray) -> np.ndarray:
        places: np.ndarray = np.clip((confidence * self.bins).astype(int), 0, self.bins - 1)
        return places

    def _reliability(self, confidence: np.ndarray, correct: np.ndarray, level: float) -> list[dict[str, Any]]:
        places, found = self._places(confidence), []
        for i in range(self.bins):
            inside = places == i
            n, right = int(inside.sum()), int(correct[inside].sum())
            row: dict[str, Any] = {"low": i / self.bins, "high": (i + 1) / self.bins, "n": n}
            if n:
                low, high = share_interval(right, n, level)
                row |= {"confidence": float(confidence[inside].mean()), "accuracy": right / n}
                row |= {"accuracy_low": low, "accuracy_high": high}
            found.append(row)
        return found


def _tempered(given: np.ndarray, targets: np.ndarray, validation: Predictions | None) -> tuple[float, np.ndarray, int]:
    """A temperature, the confidences [n] under one that has not seen their rows, and how many rows it was fitted on."""
    if validation is not None:
        value = temperature_of(validation.probabilities, validation.targets)
        return value, _confidence(given, value), len(validation)
    halves = [np.arange(len(given)) % 2 == i for i in (0, 1)]
    after, values = np.empty(len(given)), []
    for half in halves:
        values.append(temperature_of(given[~half], targets[~half]))
        after[half] = _confidence(given[half], values[-1])
    return float(np.exp(np.mean(np.log(values)))), after, len(given)


def temperature_of(given: np.ndarray, targets: np.ndarray) -> float:
    """The temperature, from 1/20 to 20, under which the right classes are likeliest; 1 where no answer is wrong.

    Args:
        given: probabilities, [n, C]; their logs are the logits but for a constant.
        targets: the right classes, [n].
    """
    if (given.argmax(1) == targets).all():  # the colder the likelier then, without end
        return 1.0
    logs = np.log(np.maximum(given, _LEAST))

    def surprise(log_t: float) -> float:
        cold = logs / np.exp(log_t)
        return float((logsumexp(cold, axis=1) - cold[np.arange(len(cold)), targets]).mean())

    return float(np.exp(minimize_scalar(surprise, bounds=(-np.log(20), np.log(20)), method="bounded").x))


def _confidence(given: np.ndarray, temperature: float) -> np.ndarray:
    found: np.ndarray = softmax(np.log(np.maximum(given, _LEAST)) / temperature, axis=1).max(1)
    return found
