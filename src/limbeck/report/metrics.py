"""What the names in the scores mean: how they are called, shown and judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from limbeck.report import formats
from limbeck.report.facts import Facts, Row, finite
from limbeck.report.formats import Kind
from limbeck.report.words import Words


@dataclass(frozen=True)
class Metric:
    """How a score is shown and judged."""

    kind: Kind
    lower_is_better: bool = False


_SHARES = (
    *("accuracy", "answer_accuracy", "top5_accuracy", "macro_f1", "auroc", "majority_vote", "step_equations_right"),
    *("agreement_with_teacher", "kept_of_teacher", "stability", "path_agreement", "answer_follows_steps"),
)
_LOWER_SHARES = (
    *("unparsed_answers", "unfinished_answers", "empty_answers", "inherited_errors", "new_errors"),
    *("ece", "ece_after_temperature"),
)
_KNOWN = {
    **{name: Metric(formats.share) for name in _SHARES},
    **{name: Metric(formats.share, lower_is_better=True) for name in _LOWER_SHARES},
    "perplexity": Metric(formats.plain(), lower_is_better=True),
    "brier": Metric(formats.plain(), lower_is_better=True),
    "temperature": Metric(formats.plain()),
    "student_minus_baseline": Metric(formats.points),
    "student_minus_teacher": Metric(formats.points),
    "log_perplexity_minus_baseline": Metric(formats.relative, lower_is_better=True),
    "mcnemar_p_teacher": Metric(formats.probability),
    "mcnemar_p_baseline": Metric(formats.probability),
    "parameters": Metric(formats.magnitude),
    "flops_per_row": Metric(formats.magnitude),
    **dict.fromkeys(("bytes", "bytes_on_disk", "peak_memory"), Metric(formats.size)),
    **dict.fromkeys(("latency_p50", "latency_p95", "latency_p99"), Metric(formats.milliseconds)),
    "cpu_seconds_per_request": Metric(lambda value, *_: formats.milliseconds(1000 * value)),
    **dict.fromkeys(("speedup", "size_ratio"), Metric(formats.times)),
}
_BY_UNIT: dict[str, Kind] = {
    "bytes": formats.size,
    "parameters": formats.magnitude,
    "p": formats.probability,
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
    """How a row of the scores is shown; names nobody knows go by their unit."""
    name, unit = str(row["name"]), str(row.get("unit") or "")
    known = _KNOWN.get(name)
    if known is None:
        return Metric(_BY_UNIT.get(unit) or formats.plain(unit))
    if known.kind is formats.share and unit in (*_HUNDREDTHS, "count", "answers", "rows", "samples"):
        return Metric(_BY_UNIT.get(unit, formats.percent), known.lower_is_better)
    if name in ("student_minus_baseline", "student_minus_teacher") and unit in _HUNDREDTHS:
        return Metric(formats.percentage_points)
    return known


def label(row: Row, say: Words) -> str:
    """What a row of the scores is called, with a note where less is better."""
    name = name_of(str(row["name"]), say)
    return say("metric.lower", name=name) if metric(row).lower_is_better else name


def name_of(name: str, say: Words) -> str:
    """What a score is called; those that nobody named in advance go by their own name."""
    if f"metric.{name}" in say.table:
        return say(f"metric.{name}")
    if name.startswith("pass_at_"):
        return say("metric.pass_at_", which=name.removeprefix("pass_at_"))
    if name.startswith("robustness_"):
        return say("metric.robustness_", which=perturbation_name(name.removeprefix("robustness_"), say))
    return name.replace("_", " ").capitalize()


def perturbation_name(name: str, say: Words) -> str:
    """What a way of making rows worse is called; one that nobody named in advance goes by its own name."""
    return say.either(f"perturbation.{name}", name.replace("_", " ").capitalize())


def shown(value: object, kind: Kind, say: Words, *peers: float) -> str:
    """A value with its unit in the report's language, a dash where there is none."""
    if not finite(value):
        return formats.DASH
    digits, unit = kind(value, *peers)
    return digits + say.unit(unit)


def split_value(row: Row, say: Words) -> tuple[str, str]:
    """A score's digits, and its unit for smaller print."""
    ends = [row[end] for end in ("low", "high") if finite(row.get(end))]
    digits, unit = metric(row).kind(row["value"], *ends)
    return digits, say.unit(unit)


def value_text(row: Row, say: Words) -> str:
    """A score's value with its unit."""
    return "".join(split_value(row, say)) if finite(row.get("value")) else formats.DASH


def interval_text(row: Row) -> str:
    """A score's interval, empty where there is none."""
    return formats.interval(row["low"], row["high"], metric(row).kind, row["value"]) if has_interval(row) else ""


def with_interval(row: Row, say: Words) -> str:
    """A score's value and, where there is one, its interval."""
    return " ".join(filter(None, (value_text(row, say), interval_text(row))))


def has_interval(row: Row) -> bool:
    """True if the ends of the interval are known, and came of more than one row."""
    several = not finite(row.get("n")) or row["n"] > 1
    return several and finite(row.get("low")) and finite(row.get("high"))


def size_name(facts: Facts, names: Sequence[str] = ("parameters", "bytes")) -> str | None:
    """The measure of size that most models have, the first of those that are had alike."""
    counts = {n: sum(r["name"] == n and finite(r.get("value")) for r in facts.scores) for n in names}
    best = max(counts, key=lambda n: counts[n])  # a tie goes to the first
    return best if counts[best] else None
