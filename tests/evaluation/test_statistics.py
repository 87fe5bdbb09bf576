"""Intervals against what theory says of them."""

from __future__ import annotations

import numpy as np
import pytest

from limbeck.evaluation.statistics import difference, interval, mean, median_ratio, perplexity, ratio

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
    assert float(ratio(np.asarray([1.0]), np.asarray([0.0]), -1)) == 0.0


def test_perplexity_weighs_tokens_not_rows() -> None:
    nll, tokens = np.asarray([1.0, 9.0]), np.asarray([1.0, 3.0])
    assert float(perplexity(nll, tokens, -1)) == pytest.approx(np.exp(10 / 4))


def test_median_ratio_ignores_outliers() -> None:
    slow, fast = np.asarray([2.0, 2.0, 2.0, 900.0]), np.asarray([1.0, 1.0, 1.0, 1.0])
    assert float(median_ratio(slow, fast, -1)) == 2.0


def test_the_same_draws_every_time() -> None:
    rows = np.random.default_rng(1).random(50)
    assert interval((rows,), mean, **LEVEL) == interval((rows,), mean, **LEVEL)


def test_one_row_has_no_spread() -> None:
    assert interval((np.asarray([1.0]),), mean, **LEVEL) == (1.0, 1.0, 1.0)
