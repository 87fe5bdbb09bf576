"""The cascade's threshold: its arithmetic by hand, and how often its promise is kept."""

from __future__ import annotations

import numpy as np
import pytest

from limbeck.core.errors import BudgetError, RecipeError
from limbeck.evaluation.cascade import Rows, curve_of, fit, stack

HAND = stack([[0.9, 0.8, 0.4, 0.3]], [[True, False, True, False], [True, True, False, True]])


def drawn(generator: np.random.Generator, n: int) -> Rows:
    """A student that is right as often as it says, and a teacher that is right on 95 % of all rows."""
    confidence = generator.uniform(0.3, 1.0, n)
    student = generator.uniform(size=n) < confidence
    return Rows(confidence[None], np.stack([student, generator.uniform(size=n) < 0.95]))


def test_curve_by_hand() -> None:
    points = {round(p.threshold, 6): p for p in curve_of(HAND)}

    assert points[1.0].accuracy == 0.75  # the last model alone
    assert points[1.0].teacher_share == 1.0
    assert (points[0.8].accuracy, points[0.8].teacher_share, points[0.8].excess_errors) == (0.5, 0.5, 0.25)
    assert (points[0.0].accuracy, points[0.0].teacher_share) == (0.5, 0.0)


def test_each_of_three_models_answers_what_comes_to_it() -> None:
    rows = stack([[0.9, 0.1, 0.1], [0.2, 0.9, 0.3]], [[True, False, False], [False, True, False], [False, False, True]])

    point = next(p for p in curve_of(rows) if p.threshold == 0.9)

    assert point.accuracy == 1.0
    assert point.asked == (1.0, pytest.approx(2 / 3), pytest.approx(1 / 3))


@pytest.mark.parametrize("promise", ["accuracy", "excess_errors", "teacher_share"])
def test_promise_is_kept_as_often_as_it_says(promise: str) -> None:
    generator, level = np.random.default_rng(0), 0.9
    target = {"accuracy": 0.88, "excess_errors": 0.05, "teacher_share": 0.4}[promise]
    world = curve_of(drawn(generator, 20_000))
    broken = 0
    for _ in range(60):
        found = fit(drawn(generator, 300), promise, target, level=level)
        truth = min(world, key=lambda p: abs(p.threshold - found.point.threshold))
        value = getattr(truth, promise)
        broken += value < target - 0.004 if promise == "accuracy" else value > target + 0.004

    assert broken / 60 <= 0.15


def test_most_rows_stay_with_the_student_that_the_promise_allows() -> None:
    rows = drawn(np.random.default_rng(1), 5000)

    easy, hard = (fit(rows, "accuracy", target).point for target in (0.8, 0.92))

    assert easy.teacher_share < hard.teacher_share
    assert easy.threshold < hard.threshold


def test_a_promise_that_cannot_be_kept() -> None:
    with pytest.raises(BudgetError, match=r"no threshold promises accuracy 0.99[\s\S]*at best accuracy 0.9"):
        fit(drawn(np.random.default_rng(2), 500), "accuracy", 0.99)


def test_too_few_rows_for_any_promise() -> None:
    with pytest.raises(BudgetError, match="on 4 rows"):
        fit(HAND, "excess_errors", 0.1)


@pytest.mark.parametrize("target", [0.0, 1.0, 1.5])
def test_targets_are_shares(target: float) -> None:
    with pytest.raises(RecipeError, match="shares"):
        fit(HAND, "accuracy", target)


def test_models_and_rows_must_fit() -> None:
    with pytest.raises(RecipeError, match="two models"):
        stack([[0.5, 0.5]], [[True], [True]])
    with pytest.raises(RecipeError, match="between 0 and 1"):
        stack([[1.5]], [[True], [True]])
