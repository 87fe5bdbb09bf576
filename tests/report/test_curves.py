"""Logs become lines of bounded length, without what cannot be drawn."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from limbeck.report.curves import POINTS, curve, loss_curves, spread, thin


@given(st.integers(1, 3000), st.integers(1, 500))
def test_thinning_bounds_the_points_and_keeps_the_mean(count: int, limit: int) -> None:
    xs, ys = thin(([float(i) for i in range(count)], [1.0] * count), limit)
    assert len(xs) == len(ys) == min(count, limit)
    assert xs == sorted(xs)
    assert all(0 <= x <= count - 1 for x in xs)
    assert all(y == 1.0 for y in ys)


def test_bins_are_averages() -> None:
    assert thin(([0.0, 1.0, 2.0, 3.0], [1.0, 3.0, 5.0, 9.0]), 2) == ([0.5, 2.5], [2.0, 7.0])


def test_a_short_line_is_left_alone() -> None:
    points = ([1.0, 2.0], [3.0, 4.0])
    assert thin(points) is points
    assert len(thin(([float(i) for i in range(10_000)], [0.0] * 10_000))[0]) == POINTS


def test_what_is_not_finite_is_left_out() -> None:
    assert curve([1, 2, 3, 4], [0.5, None, float("nan"), float("inf")]) == ([1.0], [0.5])


def steps(*terms: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"step": i, "stage": "s", "terms": t, "loss": sum(t.values())} for i, t in enumerate(terms, 1)]


def test_the_only_term_is_not_drawn_twice() -> None:
    assert [name for name, _ in loss_curves(steps({"ce": 1.0}, {"ce": 0.5}), "Total")] == ["Total"]


def test_terms_of_later_stages() -> None:
    found = dict(loss_curves(steps({"ce": 1.0}, {"ce": 0.5, "kl": 0.2}), "Total"))
    assert found["kl"] == ([2.0], [0.2])


def test_no_logarithm_of_zero() -> None:
    assert spread([0.0, 5.0]) == 1.0
    assert spread([0.5, 5.0]) == 10.0
