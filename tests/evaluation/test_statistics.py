"""Intervals against what theory says of them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import bootstrap

from limbeck.evaluation import statistics
from limbeck.evaluation.statistics import (
    difference,
    fisher,
    holm,
    interval,
    mcnemar,
    mean,
    median_ratio,
    perplexity,
    ratio,
    share_interval,
)

LEVEL = {"confidence": 0.95, "resamples": 4000}


def test_mean_of_coins_has_the_normal_interval() -> None:
    rows = np.asarray([1.0] * 320 + [0.0] * 80)
    value, low, high = interval((rows,), mean, **LEVEL)
    half = 1.96 * np.sqrt(0.8 * 0.2 / 400)
    assert value == 0.8
    assert low == pytest.approx(0.8 - half, abs=0.006)
    assert high == pytest.approx(0.8 + half, abs=0.006)


def test_difference_is_paired() -> None:
    draw = np.random.default_rng(0)
    hard = draw.random(500) < 0.5  # both models fail on the same rows
    one, other = hard.astype(float), hard.astype(float)
    other[:10] = 1 - other[:10]
    _, low, high = interval((one, other), difference, **LEVEL)
    assert high - low < 0.03  # unpaired it would be 0.12


def test_identical_models_differ_by_nothing() -> None:
    rows = np.asarray([0.0, 1.0, 1.0, 0.0])
    assert interval((rows, rows), difference, **LEVEL) == (0.0, 0.0, 0.0)
    assert interval((rows, rows), ratio, **LEVEL)[0] == 1.0


def test_ratio_of_nothing_is_zero() -> None:
    assert float(ratio(np.asarray([1.0]), np.asarray([0.0]), axis=-1)) == 0.0


def test_perplexity_weighs_tokens_not_rows() -> None:
    nll, tokens = np.asarray([1.0, 9.0]), np.asarray([1.0, 3.0])
    assert float(perplexity(nll, tokens, axis=-1)) == pytest.approx(np.exp(10 / 4))


def test_median_ratio_ignores_outliers() -> None:
    slow, fast = np.asarray([2.0, 2.0, 2.0, 900.0]), np.asarray([1.0, 1.0, 1.0, 1.0])
    assert float(median_ratio(slow, fast, -1)) == 2.0


def test_the_same_draws_every_time() -> None:
    rows = np.random.default_rng(1).random(50)
    assert interval((rows,), mean, **LEVEL) == interval((rows,), mean, **LEVEL)


def test_one_row_has_no_spread() -> None:
    assert interval((np.asarray([1.0]),), mean, **LEVEL) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("few", [0, 512], ids=["row by row", "by distinct rows"])
@pytest.mark.parametrize("statistic", [mean, difference, ratio, perplexity])
def test_quick_intervals_are_those_of_scipys_bootstrap(
    statistic: object, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "_FEW", few)
    draw = np.random.default_rng(2)
    columns = (draw.integers(0, 3, 300).astype(float), draw.integers(1, 4, 300).astype(float))
    columns = columns[:1] if statistic is mean else columns
    found = interval(columns, statistic, confidence=0.9, resamples=20_000)
    options = {"paired": True, "vectorized": True, "method": "percentile", "confidence_level": 0.9}
    expected = bootstrap(columns, statistic, n_resamples=20_000, rng=np.random.default_rng(3), **options)
    width = expected.confidence_interval.high - expected.confidence_interval.low
    assert found[1] == pytest.approx(expected.confidence_interval.low, abs=width / 50)
    assert found[2] == pytest.approx(expected.confidence_interval.high, abs=width / 50)


def test_mcnemar_is_that_of_statsmodels() -> None:
    tests = pytest.importorskip("statsmodels.stats.contingency_tables")
    draw = np.random.default_rng(4)
    for n in (5, 40, 700):
        one, other = draw.random(n) < 0.7, draw.random(n) < 0.6
        table = [[(one & other).sum(), (one & ~other).sum()], [(~one & other).sum(), (~one & ~other).sum()]]
        assert mcnemar(one, other) == pytest.approx(tests.mcnemar(table, exact=True).pvalue, rel=1e-9)


def test_mcnemar_of_two_that_never_differ_tells_nothing() -> None:
    rows = np.asarray([1.0, 0.0, 1.0])
    assert mcnemar(rows, rows) == 1.0
    assert mcnemar(np.ones(6), np.zeros(6)) == pytest.approx(2 / 2**6)


def test_holm_is_that_of_statsmodels() -> None:
    multiple = pytest.importorskip("statsmodels.stats.multitest")
    values = [0.01, 0.04, 0.03, 0.005, 0.9, 0.04]
    assert holm(values) == pytest.approx(multiple.multipletests(values, method="holm")[1])
    assert holm([]) == []


def test_share_and_fisher_by_known_figures() -> None:
    # Wilson 1927 by hand: p = 0.8, n = 10, z = 1.96
    assert share_interval(8, 10, 0.95) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    # Fisher's tea: 3 of 4 cups, two-sided
    assert fisher(np.asarray([1, 1, 1, 0]), np.asarray([0, 0, 0, 1])) == pytest.approx(34 / 70)
