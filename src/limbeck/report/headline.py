"""The run in one sentence that a manager can repeat and an engineer can defend."""

from __future__ import annotations

from dataclasses import dataclass

from limbeck.report import formats
from limbeck.report.facts import Facts, Row
from limbeck.report.metrics import has_interval, metric, size_name, value_text, with_interval

_WORDS = {"accuracy": "accuracy", "answer_accuracy": "answer accuracy", "perplexity": "perplexity"}

GAINS = ("student_minus_baseline", "log_perplexity_minus_baseline")
"""Differences from the baseline: of accuracies, and of perplexities."""


@dataclass(frozen=True)
class Verdict:
    """How a difference is to be read.

    Attributes:
        tone: `better`, `worse`, or `open` where the interval does not decide.
        words: the reading in a few words.
    """

    tone: str
    words: str


def headline(facts: Facts) -> str:
    """What was kept, at what size and speed, and whether the teacher was worth it, in one sentence.

    A claim is only made for a recorded score; a difference whose interval includes zero is not called one.
    """
    quality = _quality(facts)
    claims = [quality + (f" at {size}" if (size := _size(facts)) else "")] if quality else []
    if not quality and (size := _size(facts)):
        claims.append(f"has {size}")
    claims.extend(filter(None, [_speed(facts)]))
    beside = _beside_baseline(facts)
    if not claims and not beside:
        return "No scores were recorded for the student."
    if not claims:
        return beside[0].upper() + beside[1:] + "."
    return "The student " + " and ".join(claims) + (f"; {beside}" if beside else "") + "."


def gain(facts: Facts) -> Row | None:
    """The student's difference from the baseline in the score that the headline is about."""
    return facts.find("student", GAINS[1 if facts.primary == "perplexity" else 0])


def verdict(row: Row) -> Verdict:
    """Read a difference: its sign counts only where the interval leaves out zero."""
    value, lower_is_better = row["value"], metric(row).lower_is_better
    if not has_interval(row):
        return Verdict("open", "no interval: may be chance")
    if row["low"] <= 0 <= row["high"]:
        return Verdict("open", "no difference shown")
    return Verdict("better", "better") if (value < 0) == lower_is_better else Verdict("worse", "worse")


def against_teacher(row: Row) -> Verdict:
    """Read a kept share of the teacher's score: how its interval lies to one."""
    whole = _whole(row)
    if not has_interval(row):
        return Verdict("open", "no interval")
    if row["low"] <= whole <= row["high"]:
        return Verdict("open", "no difference shown")
    return Verdict("better", "above the teacher") if row["value"] > whole else Verdict("worse", "below the teacher")


def same_student(facts: Facts) -> str:
    """What the baseline is, in words."""
    return "the same student trained " + ("without the teacher" if facts.has_teacher else "on the labels alone")


def _whole(row: Row) -> float:
    return 100.0 if row.get("unit") in ("%", "percent") else 1.0


def _quality(facts: Facts) -> str:
    name = facts.primary
    if name is None:
        return ""
    student, teacher = facts.find("student", name), facts.find("teacher", name)
    kept = facts.find("student", "kept_of_teacher")
    assert student is not None
    word = _WORDS[name]
    if kept and not metric(student).lower_is_better:
        verb = "keeps" if kept["value"] <= _whole(kept) else "reaches"
        return f"{verb} {value_text(kept)} of the teacher's {word}"
    article = "an" if word[0] in "aeiou" else "a"
    if teacher:
        beside = f"{value_text(student)}, against the teacher's {value_text(teacher)},"
        return f"has {article} {word} of {beside}"
    return f"reaches {article} {word} of {with_interval(student)}"


def _size(facts: Facts) -> str:
    ratio = facts.find("student", "size_ratio")
    if ratio and abs(ratio["value"] - 1) < 0.005:
        return "the teacher's size"
    if ratio and ratio["value"] > 0:
        whose = "its" if facts.primary else "the teacher's"
        return f"{formats.part(ratio['value'])}{' of' if ratio['value'] > 1 else ''} {whose} size"
    name = size_name(facts)
    own = facts.find("student", name) if name and not facts.has_teacher else None
    return f"{value_text(own)} {'parameters' if name == 'parameters' else 'of weights'}" if own else ""


def _speed(facts: Facts) -> str:
    speedup, latency = facts.find("student", "speedup"), facts.find("student", "latency_p50")
    if speedup:
        undecided = has_interval(speedup) and speedup["low"] <= 1 <= speedup["high"]
        if undecided or abs(speedup["value"] - 1) < 0.05:
            return "answers about as fast"
        fast = formats.times(speedup["value"])[0]
        return (
            f"answers {fast} times as fast" if speedup["value"] > 1 else f"is slower ({fast} times the teacher's speed)"
        )
    return f"answers in {value_text(latency)}" if latency and not facts.has_teacher else ""


def _beside_baseline(facts: Facts) -> str:
    row = gain(facts)
    if row is None:
        return ""
    other, read = same_student(facts), verdict(row)
    if read.tone == "open":
        if has_interval(row):
            return f"no difference from {other} could be shown ({with_interval(row)})"
        return f"beside {other} it differs by {value_text(row)}, which may be chance: no interval was taken"
    amount = _magnitude(row)
    if metric(row).lower_is_better:
        direction = "lower (better)" if read.tone == "better" else "higher (worse)"
        return f"its perplexity is {amount} {direction} than that of {other}"
    return f"it is {amount} {read.tone} than {other}"


def _magnitude(row: Row) -> str:
    """A difference and its interval without their signs, for a sentence that says which way it goes."""
    ends = [row["low"], row["high"]]
    digits = [metric(row).kind(v, row["value"], *ends)[0].lstrip("+" + formats.MINUS) for v in ends]
    amount = value_text(row).lstrip("+" + formats.MINUS)
    return f"{amount} [{', '.join(reversed(digits) if row['value'] < 0 else digits)}]"
