"""Student first, larger models only where it is unsure: which threshold keeps a promise.

    answer(x) = answer of the first model m with confidence_m(x) >= t, else of the last one

A threshold that looks best on validation rows is an estimate, and tends to promise too much. Here one is chosen by
testing: thresholds are tried one after the other, from the end at which the promise is easiest to keep, each against
the hypothesis that it is broken; the first at which that cannot be rejected ends the walk. The thresholds and their
order are fixed before any row is seen, and so must be whatever turns scores into confidence; then the chance, over
rows, that the chosen threshold breaks the promise is at most 1 - level. Nothing is assumed but that the rows are drawn
like those to come, and had no part in making the models.

A share of rows is tested by the exact binomial tail, a mean cost by the tail of Hoeffding and Bentkus. What a row
costs may hang on the row; what it can cost at most must be known before.

Shapes: N rows, M models from the smallest to the largest.

Reference:
    Angelopoulos et al., Learn then Test: Calibrating Predictive Algorithms to Achieve Risk Control, 2021,
    arXiv:2110.01052.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, exp, log
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from limbeck.core.errors import BudgetError, RecipeError

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Promise = Literal["accuracy", "teacher_share", "excess_errors", "cost", "latency"]

ALWAYS = float(np.nextafter(1.0, 2.0))
"""A threshold that no confidence reaches: the last model answers every row."""
THRESHOLDS = (ALWAYS, *np.unique(np.r_[np.linspace(0, 1, 101), 1 - np.logspace(-7, -2, 51)])[::-1].tolist())
"""Thresholds that are tried, from the highest: hundredths, and finer ones near 1, where students mostly are."""


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
class Costs:
    """What asking the models takes, in money or milliseconds.

    Attributes:
        first: the first one, for any row: every row comes to it.
        later: each further one, for each row, [M - 1, N].
        most: what no row takes more than of each of them, [M - 1]; known without looking at what rows took.
    """

    first: float
    later: Floats
    most: Floats

    def __post_init__(self) -> None:
        fits = self.later.ndim == 2 and self.most.shape == self.later.shape[:1]
        if not fits or self.most.sum() <= 0 or not ((self.later >= 0) & (self.later <= self.most[:, None])).all():
            what = "what asking a model takes is known of each, is not below zero, and of one of them above it"
            raise RecipeError(what, got=f"{self.first:g}, then {', '.join(f'{each:g}' for each in self.most.flat)}")

    @property
    def means(self) -> list[float]:
        """Of each model for a row, on average over all rows, [M]."""
        return [self.first, *self.later.mean(1).tolist()]

    @property
    def are_equal(self) -> bool:
        """Whether every row takes as much of a model as any other."""
        return bool((self.later == self.most[:, None]).all())


def constant(costs: Sequence[float], n: int) -> Costs:
    """The same of a model for each of n rows; `costs` is [M]."""
    most = np.asarray(costs[1:], dtype=float)
    return Costs(float(costs[0]), np.repeat(most[:, None], n, axis=1), most)


@dataclass(frozen=True)
class Point:
    """The cascade at a threshold, on the rows that it is fitted on.

    Attributes:
        threshold: of the confidence below which the next model is asked; above 1 all rows go to the last.
        accuracy: share of right answers.
        teacher_share: share of rows that come to the last model.
        excess_errors: share of rows that the cascade has wrong and the last model right.
        asked: share of rows that come to each model, [M].
        expense: mean cost of a row: every model that it comes to is paid; None where costs are not known.
    """

    threshold: float
    accuracy: float
    teacher_share: float
    excess_errors: float
    asked: tuple[float, ...]
    expense: float | None = None


@dataclass(frozen=True)
class Tested:
    """What a hypothesis is tested with.

    Attributes:
        level: one minus the chance of rejecting it wrongly.
        limit: of the loss.
        n: rows.
    """

    level: float
    limit: float
    n: int

    @property
    def least(self) -> int:
        """Rows without which even a loss of nothing would not reject it."""
        return ceil(log(1 - self.level) / log(1 - self.limit)) if 0 < self.limit < 1 else 0


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


def curve_of(rows: Rows, costs: Costs | None = None) -> list[Point]:
    """The cascade at every threshold, from the highest."""
    return [_at(rows, threshold, costs) for threshold in THRESHOLDS]


def _at(rows: Rows, threshold: float, costs: Costs | None) -> Point:
    models, n = rows.right.shape
    by = answered_by(rows.confidence, threshold)
    right = rows.right[by, np.arange(n)]
    asked = tuple(float((by >= m).mean()) for m in range(models))
    excess = float((~right & rows.right[-1]).mean())
    expense = None
    if costs is not None:
        comes_to = by[None] > np.arange(models - 1)[:, None]
        expense = costs.first + float((costs.later * comes_to).sum(0).mean())
    return Point(threshold, float(right.mean()), asked[-1], excess, asked, expense)


def answered_by(confidence: Floats, threshold: float) -> NDArray[np.int64]:
    """The place of the model that answers each row, [N].

    Args:
        confidence: of each model but the last, [M - 1, N].
        threshold: the first model that is at least so sure answers.
    """
    sure = np.vstack([confidence >= threshold, np.ones((1, confidence.shape[1]), dtype=bool)])
    return sure.argmax(0)


def fit(
    rows: Rows,
    promise: Promise,
    target: float,
    *,
    level: float = 0.95,
    costs: Costs | None = None,
    beside: float = 0.0,
) -> Fitted:
    """The threshold that keeps a promise.

    Of those that do, it is the one with the fewest rows for larger models where answers are promised (`accuracy`,
    `excess_errors`), and the one with the most where expense is.

    Args:
        rows: what the models say of rows that had no part in making them or their confidences.
        promise: what is kept.
        target: accuracy of at least this, or of all else at most this.
        level: the chance with which the promise is kept.
        costs: of asking, in whatever `cost` or `latency` is counted in.
        beside: how much of `1 - level` is spent already: the chance that the costs are above what is given.

    Raises:
        BudgetError: no threshold keeps it, on so many rows.
        RecipeError: the target or the level is none.
    """
    dear = promise in ("cost", "latency")
    if not 0.5 < level < 1 or target <= 0 or (not dear and target >= 1):
        allowed = "a level above 0.5 and below 1, a share between 0 and 1, a cost above 0"
        raise RecipeError(
            "nothing can be promised like this", got=f"target {target:g}, level {level:g}", allowed=allowed
        )
    n = rows.right.shape[1]
    if dear and (costs is None or costs.later.shape != (len(rows.right) - 1, n)):
        raise RecipeError(f"{promise} can be promised where it is known of every model and row")
    curve = curve_of(rows, costs)
    limit = 1 - target if promise == "accuracy" else target
    if dear and costs is not None:
        limit = (target - costs.first) / float(costs.most.sum())
    shares = not dear or (costs is not None and costs.are_equal and len(rows.right) == 2)
    chosen: Point | None = None
    # Expense falls as the threshold falls, so that walk begins at the other end.
    for point in curve if promise in ("accuracy", "excess_errors") else curve[::-1]:
        if _chance(_loss(point, promise, costs), limit, n, shares=shares) > 1 - level - beside:
            break
        chosen = point
    if chosen is None:
        raise _cannot(curve, promise, target, level, Tested(level + beside, limit, n))
    return Fitted(chosen, promise, target, level, n, tuple(curve))


def _loss(point: Point, promise: Promise, costs: Costs | None) -> float:
    """What must stay small: the mean of a loss that is between 0 and 1 in every row."""
    if promise in ("cost", "latency"):
        assert costs is not None
        assert point.expense is not None
        return (point.expense - costs.first) / float(costs.most.sum())
    return 1 - point.accuracy if promise == "accuracy" else float(getattr(point, promise))


def _chance(mean: float, limit: float, n: int, *, shares: bool) -> float:
    """A p-value of "the loss is above the limit": the most that a mean as small as this one is likely then.

    Args:
        mean: of the rows' losses.
        limit: of the loss.
        n: rows.
        shares: the loss of a row is 0 or 1.

    Reference:
        Bates et al., Distribution-Free, Risk-Controlling Prediction Sets, 2021, arXiv:2101.02703.
    """
    if limit <= 0 or limit >= 1:
        return float(limit <= 0)
    if shares:
        return float(binom.cdf(round(mean * n), n, limit))
    if mean >= limit:
        return 1.0
    apart = (mean * log(mean / limit) if mean else 0.0) + (1 - mean) * log((1 - mean) / (1 - limit))
    # A whole number of rows may have come out a hair above itself.
    bentkus = exp(1) * float(binom.cdf(ceil(mean * n - 1e-9), n, limit))
    return min(1.0, exp(-n * apart), bentkus)


def _cannot(curve: Sequence[Point], promise: Promise, target: float, level: float, tested: Tested) -> BudgetError:
    fix = "promise less, or give more validation rows"
    if promise in ("cost", "latency") and tested.limit <= 0:
        got = f"the first model alone takes {curve[-1].expense:g}"
    elif tested.n < tested.least:
        got = f"it could be told with {tested.least} rows at the earliest"
    else:
        got = f"the last model alone has {curve[0].accuracy:.4f}, and is where the search begins"
        fix += ", or take a better last model"
    what = f"no threshold promises {promise} {target:g} with {level:.0%} on {tested.n} rows"
    return BudgetError(what, got=got, fix=fix)
