"""The few figures that are shown large."""

from __future__ import annotations

from dataclasses import dataclass

from limbeck.report import formats
from limbeck.report.facts import Facts, Row
from limbeck.report.headline import against_teacher, gain, same_student, verdict
from limbeck.report.metrics import interval_text, metric, size_name, split_value, value_text, with_interval


@dataclass(frozen=True)
class Card:
    """One large figure.

    Attributes:
        label: what it is.
        figure: the number.
        unit: what is set smaller after it.
        interval: its interval, or nothing.
        detail: what it is made of.
        tone: `better`, `worse`, `open`, or nothing where there is nothing to judge.
        words: the reading of the tone.
    """

    label: str
    figure: str
    unit: str = ""
    interval: str = ""
    detail: str = ""
    tone: str = ""
    words: str = ""


def cards(facts: Facts) -> list[Card]:
    """Quality, size, speed and the comparison with the baseline, as far as they were recorded."""
    return [card for make in (_quality, _size, _speed, _baseline) if (card := make(facts))]


def _label(row: Row) -> str:
    return metric(row).label.removesuffix(" (lower is better)")


def _beside(facts: Facts, name: str) -> str:
    """The student's value and the teacher's, where both are known."""
    student, teacher = facts.find("student", name), facts.find("teacher", name)
    return f"{value_text(student)} instead of {value_text(teacher)}" if student and teacher else ""


def _quality(facts: Facts) -> Card | None:
    name = facts.primary
    if name is None:
        return None
    row, teacher = facts.find("student", name), facts.find("teacher", name)
    kept = facts.find("student", "kept_of_teacher")
    assert row is not None
    if kept and not metric(row).lower_is_better:
        read = against_teacher(kept)
        words = "" if read.tone == "worse" else read.words  # a share below 100 % says so itself
        beside = _beside(facts, name) if teacher else f"{_label(row)} {value_text(row)}"
        return Card(f"{_label(row)} kept", *split_value(kept), interval_text(kept), beside, "", words)
    beside = f"teacher {with_interval(teacher)}" if teacher else ""
    return Card(_label(row), *split_value(row), interval_text(row), beside)


def _size(facts: Facts) -> Card | None:
    ratio, name = facts.find("student", "size_ratio"), size_name(facts)
    what = {"parameters": "parameters", "bytes": "of weights"}.get(name or "", "")
    if ratio and ratio["value"] > 0:
        figure = "same" if abs(ratio["value"] - 1) < 0.005 else formats.part(ratio["value"])
        beside = _beside(facts, name) if name else ""
        return Card("Size", figure, detail=f"{beside} {what}" if beside else "of the teacher's")
    row = facts.find("student", name) if name else None
    return Card("Size", *split_value(row), detail=what) if row else None


def _speed(facts: Facts) -> Card | None:
    speedup, latency = facts.find("student", "speedup"), facts.find("student", "latency_p50")
    if speedup:
        beside = _beside(facts, "latency_p50")
        return Card("Speed", *split_value(speedup), interval_text(speedup), f"{beside}, median" if beside else "")
    if latency is None:
        return None
    return Card("Latency", *split_value(latency), interval_text(latency), "median of single requests")


def _baseline(facts: Facts) -> Card | None:
    row = gain(facts)
    if row is None:
        return None
    read, label = verdict(row), "Gain from the teacher" if facts.has_teacher else "Gain over the baseline"
    if metric(row).lower_is_better:
        label = "Perplexity, change by the teacher" if facts.has_teacher else "Perplexity, change"
    beside = f"beside {same_student(facts)}"
    return Card(label, *split_value(row), interval_text(row), beside, read.tone, read.words)
