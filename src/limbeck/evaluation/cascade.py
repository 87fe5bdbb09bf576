"""Student first, larger models only where it is unsure: which threshold keeps a promise.

    answer(x) = answer of the first model m with confidence_m(x) >= t, else of the last one

A threshold that looks best on validation rows is an estimate, and tends to promise too much. Here one is chosen by
testing: thresholds are tried from "ask the last model always" downwards, each against the hypothesis that the promise
is broken; the first that cannot be rejected at the level ends the walk. The chance, over validation rows, that the
chosen threshold breaks the promise is at most 1 - level, with no assumption on confidences or models but that rows to
come are like the validation rows.

Shapes: N rows, M models from the smallest to the largest, T thresholds.

Reference:
    Angelopoulos et al., Learn then Test: Calibrating Predictive Algorithms to Achieve Risk Control, 2021,
    arXiv:2110.01052.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from limbeck.core.errors import BudgetError, RecipeError

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Promise = Literal["accuracy", "teacher_share", "excess_errors"]

STEPS = 200
"""Thresholds that are tried, at most."""


@dataclass(frozen=True)
class Rows:
    """What the models say of validation rows.

    Attributes:
        confidence: how sure each model but the last is, in [0, 1], [M - 1, N].
        right: whether each is right, [M, N].
    """

    confidence: Floats
    right: Bools

    def __post_init__(self) -> None:
        models, n = self.right.shape
        if models < 2 or n == 0 or self.confidence.shape != (models - 1, n):
            raise RecipeError(
                "a cascade is two models or more on the same rows, and a confidence of each but the last",
                got=f"answers {self.right.shape}, confidences {self.confidence.shape}",
            )
        if not ((self.confidence >= 0) & (self.confidence <= 1)).all():
            raise RecipeError(
                "a confidence lies between 0 and 1", got=f"{self.confidence.min()}..{self.confidence.max()}"
            )


@dataclass(frozen=True)
class Point:
    """The cascade at a threshold, on the rows that it is fitted on.

    Attributes:
        threshold: of the confidence below which the next model is asked; above 1 all rows go to the last.
        accuracy: share of right answers.
        teacher_share: share of rows that come to the last model.
        excess_errors: share of rows that the cascade has wrong and the last model right.
        asked: share of rows that come to each model, [M].
    """

    threshold: float
    accuracy: float
    teacher_share: float
    excess_errors: float
    asked: tuple[float, ...]


@dataclass(frozen=True)
class Fitted:
    """A threshold with what it promises.

    Attributes:
        point: the cascade there.
        promise: what is kept: accuracy of at least, teacher_share or excess_errors of at most `target`.
        target: the figure.
        level: the chance, over validation rows, with which it is kept.
        n: rows that it was fitted on.
        curve: all thresholds that could be chosen, from the highest.
    """

    point: Point
    promise: Promise
    target: float
    level: float
    n: int
    curve: tuple[Point, ...]


def curve_of(rows: Rows) -> list[Point]:
    """The cascade at every threshold, from the highest to 0; at most `STEPS` of them, between rows."""
    seen = np.unique(rows.confidence)
    if len(seen) > STEPS:
        seen = np.unique(np.quantile(seen, np.linspace(0, 1, STEPS), method="lower"))
    # Above 1 nothing is sure enough: the last model answers alone.
    return [_at(rows, float(t)) for t in [np.nextafter(1.0, 2.0), *seen[::-1], 0.0]]


def _at(rows: Rows, threshold: float) -> Point:
    models, n = rows.right.shape
    sure = np.vstack([rows.confidence >= threshold, np.ones((1, n), dtype=bool)])
    by = sure.argmax(0)  # the first model that is sure
    right = rows.right[by, np.arange(n)]
    asked = tuple(float((by >= m).mean()) for m in range(models))
    return Point(threshold, float(right.mean()), asked[-1], float((~right & rows.right[-1]).mean()), asked)


def fit(rows: Rows, promise: Promise, target: float, *, level: float = 0.95) -> Fitted:
    """The threshold that keeps a promise with the fewest rows for larger models; for `teacher_share`, with the most.

    Args:
        rows: what the models say of rows that none was trained on.
        promise: accuracy of at least `target`, or teacher_share or excess_errors of at most `target`.
        target: a share.
        level: the chance with which the promise is kept.

    Raises:
        BudgetError: no threshold keeps it, on so many rows.
        RecipeError: the target or the level is no share.
    """
    if not (0 < target < 1 and 0.5 < level < 1):
        raise RecipeError("target and level are shares", got=f"target {target:g}, level {level:g}", allowed="0..1")
    curve, n = curve_of(rows), rows.right.shape[1]
    # A share of rows falls as the threshold falls, so that walk begins at the other end.
    order = curve[::-1] if promise == "teacher_share" else curve
    limit = 1 - target if promise == "accuracy" else target
    chosen: Point | None = None
    for point in order:
        if binom.cdf(round(_loss(point, promise) * n), n, limit) > 1 - level:
            break
        chosen = point
    if chosen is None:
        raise BudgetError(
            f"no threshold promises {promise} {target:g} with {level:.0%} on {n} rows",
            got=_best(order[0], promise, n),
            fix="ask for less, give more validation rows, or take a better last model",
        )
    return Fitted(chosen, promise, target, level, n, tuple(curve))


def _loss(point: Point, promise: Promise) -> float:
    """The share that must stay small."""
    return 1 - point.accuracy if promise == "accuracy" else float(getattr(point, promise))


def _best(point: Point, promise: Promise, n: int) -> str:
    return f"at best {promise} {getattr(point, promise):.4f}, seen on {n} rows"


def stack(confidence: Sequence[Sequence[float]], right: Sequence[Sequence[bool]]) -> Rows:
    """Lists as rows: of each model but the last its confidences, of each whether it is right."""
    return Rows(np.asarray(confidence, dtype=float), np.asarray(right, dtype=bool))
