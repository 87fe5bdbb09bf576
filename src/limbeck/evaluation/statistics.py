"""Intervals: how far a figure could be from the truth with this many rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.stats import bootstrap

Array = np.ndarray[Any, Any]


def interval(
    columns: tuple[Array, ...], statistic: Callable[..., Any], *, confidence: float, resamples: int, seed: int = 0
) -> tuple[float, float, float]:
    """A statistic of rows and its percentile bootstrap interval; columns are drawn together, row by row.

    Args:
        columns: one or more arrays [n]; row i of all belongs to sample i.
        statistic: from arrays [..., n] and `axis` to [...].
        confidence: level, for instance 0.95.
        resamples: bootstrap draws.
        seed: of the draws.

    Returns:
        Value, low, high.

    Reference:
        Efron, Tibshirani, An Introduction to the Bootstrap, 1993.
    """
    value = float(statistic(*columns, axis=-1))
    if len(columns[0]) < 2:
        return value, value, value
    found = bootstrap(
        columns,
        statistic,
        paired=True,
        vectorized=True,
        method="percentile",
        confidence_level=confidence,
        n_resamples=resamples,
        batch=max(1, 4_000_000 // len(columns[0])),
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return value, float(found.low), float(found.high)


def mean(x: Array, axis: int) -> Any:
    """Mean of a column."""
    return x.mean(axis)


def difference(x: Array, y: Array, axis: int) -> Any:
    """Mean of x minus mean of y."""
    return x.mean(axis) - y.mean(axis)


def ratio(x: Array, y: Array, axis: int) -> Any:
    """Sum of x over sum of y; where y is all zero there is nothing to compare, and the ratio counts as 0."""
    below = y.sum(axis)
    return np.divide(x.sum(axis), below, out=np.zeros_like(below, dtype=float), where=below != 0)


def perplexity(nll: Array, tokens: Array, axis: int) -> Any:
    """exp of the mean negative log-likelihood per token."""
    return np.exp(nll.sum(axis) / tokens.sum(axis))


def median_ratio(x: Array, y: Array, axis: int) -> Any:
    """Median of x over median of y."""
    return np.median(x, axis) / np.median(y, axis)
