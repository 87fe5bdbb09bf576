"""The little arithmetic that checks share."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from statistics import median

FEWEST = 20
"""Fewer steps say nothing of where a curve goes."""


def ends(values: Sequence[float], share: float = 0.1) -> tuple[float, float]:
    """The medians of a curve's first and last part; what is not finite counts as infinite.

    Args:
        values: the curve.
        share: how much of it each part is.
    """
    size = max(1, round(share * len(values)))
    whole = [value if math.isfinite(value) else math.inf for value in values]
    return median(whole[:size]), median(whole[-size:])


def entropy(values: Iterable[Hashable]) -> float:
    """Entropy of how often each value occurs, in nats; exp of it is the number of values in use."""
    counts = Counter(values)
    total = counts.total()
    return -sum(n / total * math.log(n / total) for n in counts.values())


def in_bytes(count: float) -> str:
    """A size for people: 1.4 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def in_time(seconds: float) -> str:
    """A time for people: 2 h 10 min."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
