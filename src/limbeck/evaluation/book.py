"""Where figures are written down: one flat list of scores, and tables beside them that are too fine for it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from limbeck.core.errors import DataError
from limbeck.core.recipe import Evaluate
from limbeck.evaluation.statistics import interval, mean, share_interval

AXES = ("accuracy", "agreement", "comparison", "calibration", "robustness", "interpretability", "efficiency")
"""What figures are about, in the order in which they are listed."""


@dataclass(frozen=True)
class Score:
    """One figure of one model.

    Attributes:
        model: `student`, `teacher`, `baseline`, or the name that it was given.
        axis: what it is about, one of `AXES`.
        name: what is measured, in snake case.
        value: the figure.
        low: lower end of its interval; None where it has none.
        high: upper end of it.
        n: rows, or runs, that it comes from.
        unit: what it is counted in: share, ratio, ms, bytes, nats, ...
        split: the rows that it was taken on.
    """

    model: str
    axis: str
    name: str
    value: float
    low: float | None
    high: float | None
    n: int
    unit: str
    split: str


class Book:
    """Takes figures down as they are computed.

    Args:
        plan: split, level and number of draws of the intervals.

    Attributes:
        scores: all figures so far.
        details: by name, JSON values that are too fine for the scores: per class, per slice, per layer.
    """

    def __init__(self, plan: Evaluate):
        self.plan = plan
        self.scores: list[Score] = []
        self.details: dict[str, Any] = {}

    def estimate(self, model: str, axis: str, name: str, unit: str, statistic: Any, *columns: Any) -> Score:
        """A statistic of rows with its interval: Wilson's for the share of rows that are so, else `interval`'s.

        All of a few rows being right leaves a bootstrap nothing to vary, and an interval of no width would claim that
        the next row is right too. A single row has no interval.

        Raises:
            DataError: there are no rows, or what comes out is no number.
        """
        n = len(columns[0])
        if not n:
            raise DataError(f"there are no rows to take `{name}` of {model} from")
        value, low, high = self._interval(unit, statistic, columns)
        return self.add(Score(model, axis, name, value, low, high, n, unit, self.plan.split))

    def exact(self, model: str, axis: str, name: str, unit: str, value: float, n: int) -> Score:
        """A figure that has no interval."""
        return self.add(Score(model, axis, name, value, None, None, n, unit, self.plan.split))

    def add(self, score: Score) -> Score:
        """A figure whose interval something else has found.

        Raises:
            DataError: it is no number.
        """
        if not all(math.isfinite(end) for end in (score.value, score.low, score.high) if end is not None):
            what = f"`{score.name}` of {score.model} is no finite number, and cannot stand among the scores"
            got = f"{score.value}, {score.low} to {score.high}, of {score.n} rows"
            raise DataError(what, got=got, fix="look at that model's predictions; see that its weights are finite")
        self.scores.append(score)
        return score

    def take(self, other: Book) -> None:
        """Add all that another book holds."""
        self.scores += other.scores
        self.details |= other.details

    def rows(self) -> list[dict[str, Any]]:
        """The scores as JSON values, by axis."""
        return [asdict(score) for score in sorted(self.scores, key=lambda score: AXES.index(score.axis))]

    def _interval(
        self, unit: str, statistic: Any, columns: tuple[Any, ...]
    ) -> tuple[float, float | None, float | None]:
        level, draws, n = self.plan.confidence, self.plan.resamples, len(columns[0])
        if statistic is mean and unit == "share" and np.isin(columns[0], (0, 1)).all():
            right = int(np.sum(columns[0]))
            low, high = share_interval(right, n, level)
            return right / n, low, high
        found = interval(columns, statistic, confidence=level, resamples=draws)
        return found if n > 1 else (found[0], None, None)
