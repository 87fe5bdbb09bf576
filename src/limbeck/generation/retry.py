"""How long to wait before asking again."""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


def retry_after(value: str | None, now: datetime | None = None) -> float | None:
    """Seconds that a `Retry-After` header asks for: a number, or a date of HTTP (RFC 9110, 10.2.3).

    Args:
        value: the header as it came; None: there was none.
        now: the time that a date is compared with; left out: the clock's.

    Returns:
        Seconds, not negative, as absurd as the header is; None for one that cannot be read.
    """
    if value is None or not value.strip():
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            until = parsedate_to_datetime(value)
        except (ValueError, OverflowError):
            return None
        until = until if until.tzinfo else until.replace(tzinfo=UTC)
        seconds = (until - (now or datetime.now(UTC))).total_seconds()
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def backoff(attempt: int, base: float, most: float, draw: random.Random) -> float:
    """Seconds to wait after the attempt that failed: uniform in [0, min(most, base * 2^attempt)].

    The whole span is drawn from ("full jitter"), so that calls that failed together do not come back together.

    Args:
        attempt: how many attempts failed before this one.
        base: the first span, in seconds.
        most: the longest span, in seconds.
        draw: where the random number comes from.
    """
    return draw.uniform(0.0, min(most, base * 2.0 ** min(attempt, 60)))
