"""The cascade's threshold: its arithmetic by hand, and how often its promise is kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

from limbeck.core.errors import BudgetError, RecipeError
from limbeck.evaluation.cascade import ALWAYS, THRESHOLDS, Costs, Point, Rows, _chance, constant, curve_of, fit

COSTS = (1.0, 4.0, 20.0)


def rows_of(confidence: Sequence[Sequence[float]], right: Sequence[Sequence[bool]]) -> Rows:
    return Rows(np.asarray(confidence, dtype=float), np.asarray(right, dtype=bool))


HAND = rows_of([[0.9, 0.8, 0.4, 0.3]], [[True, False, True, False], [True, True, False, True]])


def drawn(generator: np.random.Generator, n: int) -> Rows:
    """A student that is right as often as it says, and a teacher that is right on 95 % of all rows."""
    confidence = generator.uniform(0.3, 1.0, n)
    student = generator.uniform(size=n) < confidence
    return Rows(confidence[None], np.stack([student, generator.uniform(size=n) < 0.95]))


def three(generator: np.random.Generator, n: int) -> Rows:
    """Two models that are right as often as they say, and a last one."""
    confidence = np.sort(generator.uniform(0.2, 1.0, (2, n)), axis=0)
    right = generator.uniform(size=(2, n)) < confidence
    return Rows(confidence, np.vstack([right, generator.uniform(size=n) < 0.97]))


def test_curve_by_hand() -> None:
    points = {round(p.threshold, 6): p for p in curve_of(HAND)}

    assert points[1.0].accuracy == 0.75  # the last model alone
    assert points[1.0].teacher_share == 1.0
    assert (points[0.8].accuracy, points[0.8].teacher_share, points[0.8].excess_errors) == (0.5, 0.5, 0.25)
    assert (points[0.0].accuracy, points[0.0].teacher_share) == (0.5, 0.0)


def test_each_of_three_models_answers_what_comes_to_it() -> None:
    rows = rows_of(
        [[0.9, 0.1, 0.1], [0.2, 0.9, 0.3]], [[True, False, False], [False, True, False], [False, False, True]]
    )

    point = next(p for p in curve_of(rows, constant(COSTS, 3)) if p.threshold == 0.9)

    assert point.accuracy == 1.0
    assert point.asked == (1.0, pytest.approx(2 / 3), pytest.approx(1 / 3))
    assert point.expense == pytest.approx(1 + 4 * 2 / 3 + 20 / 3)
    own = Costs(1.0, np.array([[4.0, 2.0, 3.0], [20.0, 10.0, 0.0]]), np.array([4.0, 20.0]))
    point = next(p for p in curve_of(rows, own) if p.threshold == 0.9)
    assert point.expense == pytest.approx(1 + (2 + 3 + 0) / 3)  # what those rows cost that come there
    assert own.means == [1.0, 3.0, 10.0]


def test_thresholds_know_nothing_of_the_rows() -> None:
    generator = np.random.default_rng(3)

    one, other = (curve_of(drawn(generator, n)) for n in (50, 500))

    assert [p.threshold for p in one] == [p.threshold for p in other] == list(THRESHOLDS)
    assert THRESHOLDS[0] == ALWAYS > 1.0
    assert sorted(THRESHOLDS, reverse=True) == list(THRESHOLDS)


@pytest.mark.parametrize(
    ("promise", "target", "make"),
    [
        ("accuracy", 0.88, drawn),
        ("excess_errors", 0.05, drawn),
        ("teacher_share", 0.4, drawn),
        ("cost", 9.0, three),
        ("accuracy", 0.9, three),
    ],
)
def test_promise_is_kept_as_often_as_it_says(
    promise: Any, target: float, make: Callable[[np.random.Generator, int], Rows]
) -> None:
    generator, level, times = np.random.default_rng(0), 0.9, 80
    costs = constant(COSTS, 300) if make is three else None
    world = {p.threshold: p for p in curve_of(make(generator, 40_000), costs and constant(COSTS, 40_000))}

    def truth(point: Point) -> float:
        there = world[point.threshold]
        return float(getattr(there, "expense" if promise == "cost" else promise))

    found = [truth(fit(make(generator, 300), promise, target, level=level, costs=costs).point) for _ in range(times)]
    broken = sum(value < target if promise == "accuracy" else value > target for value in found)

    # More often than this would happen once in a thousand times if the chance were 1 - level.
    assert broken <= binom.ppf(0.999, times, 1 - level)
    # And the promise is no idle one: the expense or the accuracy comes near to what is allowed.
    assert abs(float(np.median(found)) - target) < (3.0 if promise == "cost" else 0.07)


def test_chance_of_a_mean_is_one_of_a_share_that_is_never_smaller() -> None:
    for mean in (0.0, 0.1, 0.2):
        exact, general = (_chance(mean, 0.25, 200, shares=shares) for shares in (True, False))
        assert exact <= general <= 1.0
    assert _chance(0.0, 0.0, 100, shares=False) == 1.0
    assert _chance(1.0, 1.0, 100, shares=False) == 0.0
    assert _chance(0.3, 0.25, 100, shares=False) == 1.0


def test_most_rows_stay_with_the_student_that_the_promise_allows() -> None:
    rows = drawn(np.random.default_rng(1), 5000)

    easy, hard = (fit(rows, "accuracy", target).point for target in (0.8, 0.92))

    assert easy.teacher_share < hard.teacher_share
    assert easy.threshold < hard.threshold


def test_expense_that_is_allowed_is_used() -> None:
    rows = drawn(np.random.default_rng(1), 5000)

    by_share = fit(rows, "teacher_share", 0.3).point
    by_cost = fit(rows, "cost", 2.0 + 0.3 * 10, costs=constant((2.0, 10.0), 5000)).point

    assert by_share == replace(by_cost, expense=None)
    assert 0.27 < by_share.teacher_share < 0.3
    assert fit(rows, "latency", 13.0, costs=constant((2.0, 10.0), 5000)).point.teacher_share == 1.0  # nothing is dearer


def test_a_promise_that_cannot_be_kept() -> None:
    rows = drawn(np.random.default_rng(2), 500)

    with pytest.raises(BudgetError, match=r"no threshold promises accuracy 0.99[\s\S]*last model alone has 0.9"):
        fit(rows, "accuracy", 0.99)
    with pytest.raises(BudgetError, match="the first model alone takes 2"):
        fit(rows, "cost", 1.5, costs=constant((2.0, 10.0), 500))


def test_too_few_rows_for_any_promise() -> None:
    with pytest.raises(BudgetError, match=r"on 4 rows\s+got: it could be told with 29 rows at the earliest"):
        fit(HAND, "excess_errors", 0.1)

    right = np.ones((2, 29), dtype=bool)
    assert fit(Rows(np.ones((1, 29)), right), "excess_errors", 0.1).point.threshold == 0.0
    with pytest.raises(BudgetError):
        fit(Rows(np.ones((1, 28)), right[:, 1:]), "excess_errors", 0.1)


@pytest.mark.parametrize("target", [0.0, 1.0, 1.5])
def test_targets_are_shares(target: float) -> None:
    with pytest.raises(RecipeError, match="promised"):
        fit(HAND, "accuracy", target)


def test_costs_that_hang_on_the_row_are_promised_too() -> None:
    """The rows of which the student is unsure are the dearest: a mean over all rows would promise too much."""

    def world(generator: np.random.Generator, n: int) -> tuple[Rows, Costs]:
        rows = drawn(generator, n)
        each = np.where(rows.confidence[0] < 0.6, generator.uniform(5, 10, n), 1.0)
        return rows, Costs(0.0, each[None], np.array([10.0]))

    generator, target, level, times = np.random.default_rng(0), 2.0, 0.9, 60
    rows, costs = world(generator, 40_000)
    truth = {point.threshold: point.expense for point in curve_of(rows, costs)}
    chosen: list[float] = []
    for _ in range(times):
        rows, costs = world(generator, 300)
        chosen.append(fit(rows, "cost", target, level=level, costs=costs).point.threshold)
    broken = sum(float(truth[each] or 0) > target for each in chosen)
    assert broken <= binom.ppf(0.999, times, 1 - level)
    mean = constant((0.0, costs.means[1]), 300)
    assert (truth[fit(rows, "cost", target, level=level, costs=mean).point.threshold] or 0) > target


def test_bounds_of_costs_take_their_part_of_the_level() -> None:
    rows, costs = drawn(np.random.default_rng(1), 400), constant((2.0, 10.0), 400)

    whole, half = (fit(rows, "latency", 5.0, costs=costs, beside=beside) for beside in (0.0, 0.025))

    assert half.point == fit(rows, "latency", 5.0, level=0.975, costs=costs).point
    assert half.level == whole.level == 0.95
    assert half.point.teacher_share <= whole.point.teacher_share


@pytest.mark.parametrize("costs", [None, constant((1.0, 2.0, 3.0), 4), constant((1.0, 2.0), 3)])
def test_costs_must_be_known(costs: Any) -> None:
    with pytest.raises(RecipeError, match="known of every model"):
        fit(HAND, "cost", 2.0, costs=costs)


@pytest.mark.parametrize("later", [[[1.0, -1.0]], [[1.0, 3.0]], [[0.0, 0.0]], [[1.0], [1.0]]])
def test_costs_are_costs(later: Any) -> None:
    with pytest.raises(RecipeError, match="what asking a model takes"):
        Costs(0.0, np.array(later), np.array([2.0 if np.any(later) else 0.0]))


def test_models_and_rows_must_fit() -> None:
    with pytest.raises(RecipeError, match="two models"):
        rows_of([[0.5, 0.5]], [[True], [True]])
    with pytest.raises(RecipeError, match="between 0 and 1"):
        rows_of([[1.5]], [[True], [True]])
