"""Intervals and tests: how far a figure could be from the truth with this many rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from scipy.stats import binomtest, bootstrap, fisher_exact

Array = np.ndarray[Any, Any]

_FEW = 512
"""Distinct rows up to which a draw is one of how often each is there, and not of rows."""
_HELD = 10**8
"""Bytes of draws that are kept for the next figure of as many rows."""
_BLOCK = 4_000_000
"""Drawn rows that are worked on at once."""


@dataclass(frozen=True)
class Means:
    """A statistic that hangs on the columns' means alone: their resampled means are quick to have.

    Attributes:
        of: from the means, each [...], to [...].
    """

    of: Callable[..., Any]

    def __call__(self, *columns: Array, axis: int) -> Any:
        """The statistic of the columns along an axis."""
        return self.of(*(np.asarray(c, dtype=float).mean(axis) for c in columns))


def interval(
    columns: tuple[Array, ...], statistic: Callable[..., Any], *, confidence: float, resamples: int, seed: int = 0
) -> tuple[float, float, float]:
    """A statistic of rows and its percentile bootstrap interval; columns are drawn together, row by row.

    Args:
        columns: one or more arrays [n]; row i of all belongs to sample i.
        statistic: `Means`, or any function from arrays [..., n] and `axis` to [...].
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
    if isinstance(statistic, Means):
        drawn = statistic.of(*_resampled_means(np.column_stack(columns).astype(float), resamples, seed).T)
        low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
        return value, float(low), float(high)
    found = bootstrap(
        columns,
        statistic,
        paired=True,
        vectorized=True,
        method="percentile",
        confidence_level=confidence,
        n_resamples=resamples,
        batch=max(1, _BLOCK // len(columns[0])),
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return value, float(found.low), float(found.high)


def _resampled_means(table: Array, resamples: int, seed: int) -> Array:
    """Means of the columns of a table [n, k] in each draw, [resamples, k].

    Where few rows differ, how often each of those is drawn is multinomial: the same distribution, without the rows.
    """
    distinct, counts = np.unique(table, axis=0, return_counts=True)
    if len(distinct) <= _FEW:
        drawn = np.random.default_rng(seed).multinomial(len(table), counts / len(table), size=resamples)
        return drawn @ distinct / len(table)
    means = [block.astype(float) @ table for block in _draws(len(table), resamples, seed)]
    return np.concatenate(means) / len(table)


def _draws(n: int, resamples: int, seed: int) -> Sequence[Array] | Iterator[Array]:
    """How often each of n rows is in each draw, in blocks [b, n]; those of small tables are made once."""
    return _held(n, resamples, seed) if n * resamples <= _HELD else _blocks(n, resamples, seed)


@lru_cache(maxsize=1)
def _held(n: int, resamples: int, seed: int) -> tuple[Array, ...]:
    return tuple(_blocks(n, resamples, seed))


def _blocks(n: int, resamples: int, seed: int) -> Iterator[Array]:
    generator, size = np.random.default_rng(seed), max(1, _BLOCK // n)
    for start in range(0, resamples, size):
        count = min(size, resamples - start)
        rows = generator.integers(n, size=(count, n), dtype=np.int64) + np.arange(count)[:, None] * n
        # No row is drawn 256 times: with n rows, each once on average, that has a chance below 1e-500.
        yield np.bincount(rows.ravel(), minlength=count * n).reshape(count, n).astype(np.uint8)


def _quotient(above: Any, below: Any) -> Any:
    return np.divide(above, below, out=np.zeros_like(np.asarray(below, dtype=float)), where=below != 0)


mean = Means(lambda x: x)
"""Mean of a column."""
difference = Means(lambda x, y: x - y)
"""Mean of x minus mean of y."""
ratio = Means(_quotient)
"""Sum of x over sum of y; where y is all zero there is nothing to compare, and the ratio counts as 0."""
perplexity = Means(lambda nll, tokens: np.exp(nll / tokens))
"""exp of the mean negative log-likelihood per token."""
log_ratio = Means(lambda nll, other, tokens: (nll - other) / tokens)
"""Difference of two negative log-likelihoods per token."""
bounded_mean = Means(lambda x: np.clip(x, 0, 1))
"""Mean of a column whose single values may lie beyond 0 and 1, while no mean can."""


def median_ratio(x: Array, y: Array, axis: int) -> Any:
    """Median of x over median of y."""
    return np.median(x, axis) / np.median(y, axis)


def share_interval(right: int, n: int, confidence: float) -> tuple[float, float]:
    """Wilson's interval of a share, for slices too small and too many to be resampled.

    Reference:
        Wilson, Probable Inference, the Law of Succession, and Statistical Inference, 1927.
    """
    found = binomtest(right, n).proportion_ci(confidence, method="wilson")
    return float(found.low), float(found.high)


def mcnemar(one: Array, other: Array) -> float:
    """The exact two-sided p value of two models being right equally often, of rows that both have answered.

    Only rows on which one of them alone is right tell anything: p = P(as uneven a split or worse of b + c coins).

    Args:
        one: whether the one is right, [n].
        other: whether the other is, [n].

    Reference:
        McNemar, Note on the Sampling Error of the Difference Between Correlated Proportions or Percentages, 1947.
    """
    one, other = np.asarray(one, dtype=bool), np.asarray(other, dtype=bool)
    lost, gained = int((~one & other).sum()), int((one & ~other).sum())
    return 1.0 if lost + gained == 0 else float(binomtest(lost, lost + gained).pvalue)


def fisher(inside: Array, outside: Array) -> float:
    """Fisher's exact two-sided p value of two groups of rows being right equally often."""
    groups = [np.asarray(each, dtype=bool) for each in (inside, outside)]
    return float(fisher_exact([[int(each.sum()), int((~each).sum())] for each in groups]).pvalue)


def holm(values: Sequence[float]) -> list[float]:
    """P values corrected for their number: the chance of one false finding among all stays at the level.

    Reference:
        Holm, A Simple Sequentially Rejective Multiple Test Procedure, 1979.
    """
    order, found, least = np.argsort(values, kind="stable"), [0.0] * len(values), 0.0
    for rank, place in enumerate(order):
        least = max(least, min(1.0, (len(values) - rank) * values[place]))
        found[place] = least
    return found
