"""Logs as points to draw."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from limbeck.report.facts import Facts, finite

POINTS = 400
"""Most points that a drawn line has."""

Curve = tuple[list[float], list[float]]


def curve(steps: Sequence[Any], values: Sequence[Any]) -> Curve:
    """The points of a log that can be drawn: None, NaN and infinity are left out."""
    pairs = [(float(x), float(y)) for x, y in zip(steps, values, strict=True) if finite(x) and finite(y)]
    return [x for x, _ in pairs], [y for _, y in pairs]


def thin(points: Curve, limit: int = POINTS) -> Curve:
    """At most `limit` points, each the mean of as many neighbours (give or take one)."""
    xs, ys = points
    if len(xs) <= limit:
        return points
    edges = [i * len(xs) // limit for i in range(limit + 1)]
    bins = list(pairwise(edges))
    return [sum(xs[a:b]) / (b - a) for a, b in bins], [sum(ys[a:b]) / (b - a) for a, b in bins]


def loss_curves(steps: list[dict[str, Any]], total_name: str) -> list[tuple[str, Curve]]:
    """The total loss under the name given, then each term; a single term that is the total is not told twice."""
    at = [r["step"] for r in steps]
    total = curve(at, [r.get("loss") for r in steps])
    names = list(dict.fromkeys(name for r in steps for name in r.get("terms") or {}))
    terms = [(name, curve(at, [(r.get("terms") or {}).get(name) for r in steps])) for name in names]
    if len(terms) == 1 and _same(total, terms[0][1]):
        terms = []
    return [(name, points) for name, points in [(total_name, total), *terms] if points[0]]


def _same(first: Curve, second: Curve) -> bool:
    return first[0] == second[0] and all(abs(a - b) <= 1e-6 * abs(a) for a, b in zip(first[1], second[1], strict=True))


def validation_score(facts: Facts) -> str | None:
    """The score to show of the validation logs: the headline's, or else the loss."""
    wanted = dict.fromkeys([facts.primary, "accuracy", "answer_accuracy", "perplexity", "loss"])
    rows = [row for _, _, evals in facts.trainings for row in evals]
    return next((n for n in wanted if n and any(finite(r["metrics"].get(n)) for r in rows)), None)


def spread(values: Sequence[float]) -> float:
    """Largest over smallest; 1 where a logarithm has no place."""
    low = min(values, default=0.0)
    return max(values) / low if low > 0 else 1.0
