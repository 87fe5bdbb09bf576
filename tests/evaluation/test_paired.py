"""The bound of a paired drop: known cases, coverage, order."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm, ttest_1samp

from limbeck.evaluation.paired import drop_bound, rise_bound


def rows(both: int, worse: int, better: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    before = np.repeat([True, True, False, False], [both, worse, better, neither])
    after = np.repeat([True, False, True, False], [both, worse, better, neither])
    return before, after


@pytest.mark.parametrize("n", [30, 180, 10_000])
def test_rows_of_which_none_changed_still_leave_room(n: int) -> None:
    z = norm.ppf(0.95)

    assert drop_bound(*rows(n, 0, 0, 0), 0.95) == pytest.approx(z**2 / (n + z**2), rel=1e-6)


def test_both_ends_of_the_interval() -> None:
    before, after = rows(43, 1, 0, 0)

    below, above = -drop_bound(after, before, 0.975), drop_bound(before, after, 0.975)

    assert (below, above) == (pytest.approx(-0.060, abs=1e-3), pytest.approx(0.118, abs=1e-3))


def test_bound_is_above_what_was_seen_and_falls_with_rows() -> None:
    few, many = (drop_bound(*rows(80 * k, 5 * k, 2 * k, 13 * k), 0.95) for k in (1, 20))

    assert 0.03 < many < few


def test_all_lost() -> None:
    assert drop_bound(*rows(0, 5, 0, 0), 0.95) == 1.0


def test_covers_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    shares, drop = [0.85, 0.06, 0.03, 0.06], 0.03
    tables = generator.multinomial(200, shares, size=600)

    covered = np.mean([drop_bound(*rows(*table), 0.95) >= drop for table in tables])

    assert 0.92 <= covered <= 0.98


def test_other_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="one by one"):
        drop_bound(np.ones(3, dtype=bool), np.ones(4, dtype=bool), 0.95)


def likelihoods(n: int, seed: int, rise: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Texts of very different lengths, and what two models hold of them."""
    draw = np.random.default_rng(seed)
    tokens = draw.integers(1, 60, n)
    before = tokens * draw.gamma(2, 1, n)
    return before, before + tokens * draw.normal(rise, 0.3, n), tokens


def test_perplexity_of_the_same_answers_has_not_risen() -> None:
    before, _, tokens = likelihoods(20, 0)

    assert rise_bound(before, before, tokens, 0.95) == 0.0
    assert rise_bound(before, before + 0.5 * tokens, tokens, 0.95) == pytest.approx(0.5)


def test_the_bound_of_a_rise_is_that_of_a_mean_where_texts_are_equally_long() -> None:
    tokens, draw = np.full(12, 7), np.random.default_rng(0)
    before, after = draw.normal(40, 5, 12), draw.normal(41, 5, 12)

    wanted = ttest_1samp((after - before) / 7, 0).confidence_interval(0.9).high  # both sides: 5 % above

    assert rise_bound(before, after, tokens, 0.95) == pytest.approx(wanted)


def test_the_bound_of_a_rise_is_as_often_above_it_as_it_says() -> None:
    covered = [rise_bound(*likelihoods(60, seed, rise=0.1), 0.9) >= 0.1 for seed in range(1000)]

    assert 0.87 < np.mean(covered) < 0.93


def test_one_text_bounds_nothing() -> None:
    assert rise_bound(*likelihoods(1, 0), 0.95) == np.inf
    with pytest.raises(ValueError, match="one by one"):
        rise_bound(np.ones(2), np.ones(3), np.ones(3, dtype=int), 0.95)
