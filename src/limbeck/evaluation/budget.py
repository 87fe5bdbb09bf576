"""The recipe's `budget`: what a student may cost, held against what it was measured to cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from limbeck.core.errors import BudgetError
from limbeck.core.recipe import Limits

SCORES = {
    "bytes": "bytes_on_disk",
    "latency_p50": "latency_p50",
    "latency_p95": "latency_p95",
    "memory": "peak_memory",
    "price": "price_per_1000",
}
"""By limit, the score that must not be above it."""


def refuse_beyond(limits: Limits | None, scores: Iterable[Mapping[str, Any]]) -> None:
    """Refuse a student that costs more than it may: the compressed one, where there is one, for that is used.

    Args:
        limits: the recipe's `budget`; None: it may cost anything.
        scores: rows as in `evaluate/scores.json`.

    Raises:
        BudgetError: the student is above a limit, or what is limited was not measured.
    """
    rows = list(scores)
    used = "compressed" if any(row["model"] == "compressed" for row in rows) else "student"
    found = {row["name"]: row for row in rows if row["model"] == used}
    crossed, allowed = [], []
    for name, most in (limits.model_dump() if limits is not None else {}).items():
        row = found.get(SCORES[name])
        if most is not None and (row is None or not row["value"] <= most):
            crossed.append(f"{name} {row['value']:g}" if row is not None else f"{name} not measured")
            allowed.append(f"{name} {most:g}")
    if crossed:
        raise BudgetError(
            f"the {'compressed ' if used == 'compressed' else ''}student is beyond the recipe's budget",
            got=", ".join(crossed),
            allowed=", ".join(allowed),
            fix="take a smaller student, or raise `budget`; all that was made so far stays as it is",
        )
