"""What the names in the scores mean: how they are called, shown and judged."""

from __future__ import annotations

from dataclasses import dataclass

from limbeck.report import formats
from limbeck.report.facts import Facts, Row, finite
from limbeck.report.formats import Kind


@dataclass(frozen=True)
class Metric:
    """A score as a reader meets it."""

    label: str
    kind: Kind
    lower_is_better: bool = False


_KNOWN = {
    "accuracy": Metric("Accuracy", formats.share),
    "answer_accuracy": Metric("Answer accuracy", formats.share),
    "perplexity": Metric("Perplexity (lower is better)", formats.plain(), lower_is_better=True),
    "unparsed_answers": Metric("Answers that could not be read", formats.share, lower_is_better=True),
    "unfinished_answers": Metric("Answers cut off by the length limit", formats.share, lower_is_better=True),
    "agreement_with_teacher": Metric("Same answer as the teacher", formats.share),
    "kept_of_teacher": Metric("Kept of the teacher's score", formats.share),
    "student_minus_baseline": Metric("Student minus baseline", formats.points),
    "log_perplexity_minus_baseline": Metric("Perplexity beside the baseline's", formats.relative, lower_is_better=True),
    "parameters": Metric("Parameters", formats.magnitude),
    "bytes": Metric("Size of the weights", formats.size),
    "latency_p50": Metric("Latency, median", formats.milliseconds),
    "latency_p95": Metric("Latency, 95th percentile", formats.milliseconds),
    "speedup": Metric("Speed-up over the teacher", formats.times),
    "size_ratio": Metric("Times smaller than the teacher", formats.times),
}
_BY_UNIT: dict[str, Kind] = {
    "bytes": formats.size,
    "parameters": formats.magnitude,
    "ms": formats.milliseconds,
    "s": formats.duration,
    "seconds": formats.duration,
    "x": formats.times,
    **dict.fromkeys(("%", "percent"), formats.percent),
    **dict.fromkeys(("share", "fraction", "proportion", "ratio"), formats.share),
    **dict.fromkeys(("count", "answers", "rows", "samples"), formats.count),
}
_HUNDREDTHS = ("%", "percent", "points")


def metric(row: Row) -> Metric:
    """How a row of the scores is called and shown; names nobody knows go by their unit."""
    name, unit = str(row["name"]), str(row.get("unit") or "")
    known = _KNOWN.get(name)
    if known is None:
        return Metric(name.replace("_", " ").capitalize(), _BY_UNIT.get(unit) or formats.plain(unit))
    if known.kind is formats.share and unit in (*_HUNDREDTHS, "count", "answers", "rows", "samples"):
        return Metric(known.label, _BY_UNIT.get(unit, formats.percent), known.lower_is_better)
    if name == "student_minus_baseline" and unit in _HUNDREDTHS:
        return Metric(known.label, formats.percentage_points)
    return known


def split_value(row: Row) -> tuple[str, str]:
    """A score's digits, and its unit for smaller print."""
    ends = [row[end] for end in ("low", "high") if finite(row.get(end))]
    return metric(row).kind(row["value"], *ends)


def value_text(row: Row) -> str:
    """A score's value with its unit."""
    ends = [row[end] for end in ("low", "high") if finite(row.get(end))]
    return formats.text(row.get("value"), metric(row).kind, *ends)


def interval_text(row: Row) -> str:
    """A score's interval, empty where there is none."""
    return formats.interval(row["low"], row["high"], metric(row).kind, row["value"]) if has_interval(row) else ""


def with_interval(row: Row) -> str:
    """A score's value and, where there is one, its interval."""
    return " ".join(filter(None, (value_text(row), interval_text(row))))


def has_interval(row: Row) -> bool:
    """True if the ends of the interval are known, and came of more than one row."""
    several = not finite(row.get("n")) or row["n"] > 1
    return several and finite(row.get("low")) and finite(row.get("high"))


def size_name(facts: Facts) -> str | None:
    """The measure of size that most models have: their parameters, else their bytes."""
    counts = {n: sum(r["name"] == n and finite(r.get("value")) for r in facts.scores) for n in ("parameters", "bytes")}
    best = max(counts, key=lambda n: counts[n])  # a tie goes to the first
    return best if counts[best] else None
