"""The run in one sentence that a manager can repeat and an engineer can defend."""

from __future__ import annotations

from dataclasses import dataclass

from limbeck.report import formats
from limbeck.report.facts import Facts, Row
from limbeck.report.metrics import has_interval, metric, size_name, value_text, with_interval
from limbeck.report.words import Words

GAINS = ("student_minus_baseline", "log_perplexity_minus_baseline")
"""Differences from the baseline: of accuracies, and of perplexities."""


@dataclass(frozen=True)
class Verdict:
    """How a difference is to be read.

    Attributes:
        tone: `better`, `worse`, or `open` where the interval does not decide.
        reading: key of the reading's words.
    """

    tone: str
    reading: str

    def words(self, say: Words) -> str:
        """The reading in a few words."""
        return say(f"reading.{self.reading}")


def headline(facts: Facts) -> str:
    """What was kept, at what size and speed, whether the teacher was worth it, and the same of what is shipped.

    A claim is only made for a recorded score; a difference whose interval includes zero is not called one.
    """
    say, quality, size = facts.say, _quality(facts), _size(facts)
    claims = [say("headline.at", quality=quality, size=size) if size else quality] if quality else []
    if not quality and size:
        claims.append(say("headline.has", size=size))
    claims.extend(filter(None, [_speed(facts)]))
    beside = _beside_baseline(facts)
    if not claims and not beside:
        return say("headline.none")
    if not claims:
        return say("headline.alone", beside=beside[0].upper() + beside[1:])
    text = say("headline.and").join(claims)
    told = say("headline.both", claims=text, beside=beside) if beside else say("headline.claims", claims=text)
    return told + _compressed(facts)


def gain(facts: Facts) -> Row | None:
    """The student's difference from the baseline in the score that the headline is about."""
    return facts.find("student", GAINS[1 if facts.primary == "perplexity" else 0])


def verdict(row: Row) -> Verdict:
    """Read a difference: its sign counts only where the interval leaves out zero."""
    value, lower_is_better = row["value"], metric(row).lower_is_better
    if not has_interval(row):
        return Verdict("open", "chance")
    if row["low"] <= 0 <= row["high"]:
        return Verdict("open", "same")
    return Verdict("better", "better") if (value < 0) == lower_is_better else Verdict("worse", "worse")


def against_teacher(row: Row) -> Verdict:
    """Read a kept share of the teacher's score: how its interval lies to one."""
    whole = _whole(row)
    if not has_interval(row):
        return Verdict("open", "no_interval")
    if row["low"] <= whole <= row["high"]:
        return Verdict("open", "same")
    return Verdict("better", "above_teacher") if row["value"] > whole else Verdict("worse", "below_teacher")


def same_student(facts: Facts) -> str:
    """What the baseline is, in words."""
    return facts.say("headline.without_teacher" if facts.has_teacher else "headline.labels_alone")


def _whole(row: Row) -> float:
    return 100.0 if row.get("unit") in ("%", "percent") else 1.0


def _quality(facts: Facts) -> str:
    name, say = facts.primary, facts.say
    if name is None:
        return ""
    student, teacher = facts.find("student", name), facts.find("teacher", name)
    kept = facts.find("student", "kept_of_teacher")
    assert student is not None
    if kept and not metric(student).lower_is_better:
        key = "headline.keeps" if kept["value"] <= _whole(kept) else "headline.exceeds"
        return say(key, value=value_text(kept, say), score=say(f"headline.score.{name}"))
    a_score = say(f"headline.a_score.{name}")
    if teacher:
        own, other = value_text(student, say), value_text(teacher, say)
        return say("headline.against", a_score=a_score, value=own, teacher=other)
    return say("headline.reaches", a_score=a_score, value=with_interval(student, say))


def _size(facts: Facts) -> str:
    ratio, say = facts.find("student", "size_ratio"), facts.say
    if ratio and abs(ratio["value"] - 1) < 0.005:
        return say("headline.same_size")
    if ratio and ratio["value"] > 0:
        part = formats.part(ratio["value"], say("unit.times"))
        whose = "its" if facts.primary else "teachers"
        return say(f"headline.{'part' if ratio['value'] > 1 else 'more'}_of_{whose}", part=part)
    name = size_name(facts)
    own = facts.find("student", name) if name and not facts.has_teacher else None
    return say(f"headline.size.{name}", value=value_text(own, say)) if own else ""


def _speed(facts: Facts) -> str:
    speedup, latency, say = facts.find("student", "speedup"), facts.find("student", "latency_p50"), facts.say
    if speedup:
        undecided = has_interval(speedup) and speedup["low"] <= 1 <= speedup["high"]
        if undecided or abs(speedup["value"] - 1) < 0.05:
            return say("headline.same_speed")
        fast = formats.times(speedup["value"])[0]
        return say("headline.faster" if speedup["value"] > 1 else "headline.slower", times=fast)
    return say("headline.latency", value=value_text(latency, say)) if latency and not facts.has_teacher else ""


def _compressed(facts: Facts) -> str:
    """What is kept of the teacher, and its speed, after compression; nothing where one of them is not known."""
    kept, speedup, say = facts.find("compressed", "kept_of_teacher"), facts.find("compressed", "speedup"), facts.say
    if not kept or not speedup or facts.primary is None or metric(kept).lower_is_better:
        return ""
    return say("headline.compressed", value=value_text(kept, say), times=formats.times(speedup["value"])[0])


def _beside_baseline(facts: Facts) -> str:
    row, say = gain(facts), facts.say
    if row is None:
        return ""
    other, read = same_student(facts), verdict(row)
    if read.tone == "open":
        if has_interval(row):
            return say("headline.no_difference", other=other, value=with_interval(row, say))
        return say("headline.no_interval", other=other, value=value_text(row, say))
    kind = "perplexity" if metric(row).lower_is_better else "points"
    return say(f"headline.{kind}_{read.tone}", other=other, amount=_magnitude(row, say))


def _magnitude(row: Row, say: Words) -> str:
    """A difference and its interval without their signs, for a sentence that says which way it goes."""
    ends = [row["low"], row["high"]]
    digits = [metric(row).kind(v, row["value"], *ends)[0].lstrip("+" + formats.MINUS) for v in ends]
    amount = value_text(row, say).lstrip("+" + formats.MINUS)
    return f"{amount} [{', '.join(reversed(digits) if row['value'] < 0 else digits)}]"
