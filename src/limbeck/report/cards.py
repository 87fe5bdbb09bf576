"""The few figures that are shown large."""

from __future__ import annotations

from dataclasses import dataclass

from limbeck.report import formats
from limbeck.report.facts import Facts
from limbeck.report.headline import against_teacher, gain, same_student, verdict
from limbeck.report.metrics import interval_text, metric, name_of, size_name, split_value, value_text, with_interval


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


def _beside(facts: Facts, name: str) -> str:
    """The student's value and the teacher's, where both are known."""
    student, teacher, say = facts.find("student", name), facts.find("teacher", name), facts.say
    if not (student and teacher):
        return ""
    return say("card.instead", student=value_text(student, say), teacher=value_text(teacher, say))


def _quality(facts: Facts) -> Card | None:
    name, say = facts.primary, facts.say
    row = facts.find("student", name) if name else None
    if name is None or row is None:
        return None
    teacher, kept, called = facts.find("teacher", name), facts.find("student", "kept_of_teacher"), name_of(name, say)
    if kept and not metric(row).lower_is_better:
        read = against_teacher(kept)
        words = "" if read.tone == "worse" else read.words(say)  # a share below 100 % says so itself
        beside = _beside(facts, name) if teacher else f"{called} {value_text(row, say)}"
        return Card(say("card.kept", score=called), *split_value(kept, say), interval_text(kept), beside, "", words)
    beside = say("card.teacher", value=with_interval(teacher, say)) if teacher else ""
    return Card(called, *split_value(row, say), interval_text(row), beside)


def _size(facts: Facts) -> Card | None:
    ratio, name, say = facts.find("student", "size_ratio"), size_name(facts), facts.say
    what = say(f"card.{name}") if name else ""
    if ratio and ratio["value"] > 0:
        same = abs(ratio["value"] - 1) < 0.005
        figure = say("card.same") if same else formats.part(ratio["value"], say("unit.times"))
        beside = _beside(facts, name) if name else ""
        return Card(say("card.size"), figure, detail=f"{beside} {what}" if beside else say("card.of_teachers"))
    row = facts.find("student", name) if name else None
    return Card(say("card.size"), *split_value(row, say), detail=what) if row else None


def _speed(facts: Facts) -> Card | None:
    speedup, latency, say = facts.find("student", "speedup"), facts.find("student", "latency_p50"), facts.say
    if speedup:
        beside = _beside(facts, "latency_p50")
        detail = say("card.median", beside=beside) if beside else ""
        return Card(say("card.speed"), *split_value(speedup, say), interval_text(speedup), detail)
    if latency is None:
        return None
    return Card(say("card.latency"), *split_value(latency, say), interval_text(latency), say("card.requests"))


def _baseline(facts: Facts) -> Card | None:
    row, say = gain(facts), facts.say
    if row is None:
        return None
    read, whose = verdict(row), "teacher" if facts.has_teacher else "baseline"
    kind = "perplexity" if metric(row).lower_is_better else "gain"
    beside = say("card.beside", other=same_student(facts))
    called = say(f"card.{kind}_{whose}")
    return Card(called, *split_value(row, say), interval_text(row), beside, read.tone, read.words(say))
