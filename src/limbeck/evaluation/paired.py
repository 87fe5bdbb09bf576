"""How much worse one of two models may be that answered the same rows."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import norm, t


def drop_bound(before: NDArray[np.bool_], after: NDArray[np.bool_], confidence: float) -> float:
    """The one-sided upper bound of `P(before right) - P(after right)`, by inverting the score test.

    A bootstrap of rows of which none has changed says that nothing can change; this bound is z^2 / (n + z^2) then,
    and falls with the number of rows.

    Args:
        before: whether the first model is right, [n].
        after: whether the second one is, on the same rows.
        confidence: of the bound, 0.95 say.

    Raises:
        ValueError: the rows are not the same in number, or there are none.

    Reference:
        Tango, Equivalence Test and Confidence Interval for the Difference in Proportions for the Paired-Sample
        Design, 1998.
    """
    if before.shape != after.shape or before.size == 0:
        raise ValueError(f"rows of two models are compared one by one, got {before.shape} and {after.shape}")
    n, worse, better = before.size, int((before & ~after).sum()), int((~before & after).sum())
    z, seen = float(norm.ppf(confidence)), (worse - better) / before.size
    if seen >= 1.0:
        return 1.0
    return float(brentq(lambda drop: _score(worse, better, n, drop) + z, seen, 1.0 - 1e-12))


def _score(worse: int, better: int, n: int, drop: float) -> float:
    """The score statistic of the hypothesis that the share falls by `drop`; standard normal if it does."""
    a, b, c = 2 * n, -worse - better + (2 * n - worse + better) * drop, -better * drop * (1 - drop)
    share = (math.sqrt(max(0.0, b * b - 4 * a * c)) - b) / (2 * a)
    spread = n * (2 * share + drop * (1 - drop))
    return (worse - better - n * drop) / math.sqrt(spread) if spread > 0 else 0.0


def rise_bound(
    before: NDArray[np.float64], after: NDArray[np.float64], tokens: NDArray[np.int64], confidence: float
) -> float:
    """The one-sided upper bound of the rise of the log perplexity, `(sum after - sum before) / sum tokens`.

    A text is drawn as a whole, so that this is a ratio of two means: its error comes from how far each text is from
    the common rise (the delta method), with Student's t for few texts. One text alone has no bound: it is infinite.

    Args:
        before: negative log-likelihoods of texts by the first model, [n].
        after: by the second one, [n].
        tokens: of each text, [n].
        confidence: of the bound, 0.95 say.

    Raises:
        ValueError: the texts are not the same in number, or there are none.

    Reference:
        Cochran, Sampling Techniques, 1977 (ratio estimates).
    """
    if before.shape != after.shape or before.shape != tokens.shape or before.size == 0:
        raise ValueError(f"texts of two models are compared one by one, got {before.shape} and {after.shape}")
    n, worse = before.size, after - before
    rise = float(worse.sum() / tokens.sum())
    if n == 1:
        return math.inf
    error = math.sqrt(n / (n - 1) * float(np.square(worse - rise * tokens).sum())) / float(tokens.sum())
    return rise + float(t.ppf(confidence, n - 1)) * error
