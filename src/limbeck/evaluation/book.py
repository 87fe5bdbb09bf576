"""Where figures are written down: one flat list of scores, and tables beside them that are too fine for it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from limbeck.core.recipe import Evaluate
from limbeck.evaluation.statistics import interval

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
        """A statistic of rows with its bootstrap interval; see `statistics.interval`."""
        level, draws = self.plan.confidence, self.plan.resamples
        found = interval(columns, statistic, confidence=level, resamples=draws)
        return self._add(Score(model, axis, name, *found, len(columns[0]), unit, self.plan.split))

    def exact(self, model: str, axis: str, name: str, unit: str, value: float, n: int) -> Score:
        """A figure that has no interval."""
        return self._add(Score(model, axis, name, value, None, None, n, unit, self.plan.split))

    def take(self, other: Book) -> None:
        """Add all that another book holds."""
        self.scores += other.scores
        self.details |= other.details

    def rows(self) -> list[dict[str, Any]]:
        """The scores as JSON values, by axis."""
        return [asdict(score) for score in sorted(self.scores, key=lambda score: AXES.index(score.axis))]

    def _add(self, score: Score) -> Score:
        self.scores.append(score)
        return score
