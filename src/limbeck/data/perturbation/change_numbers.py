"""Other numbers in a word problem, and the answer worked out anew."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import ClassVar

import numpy as np
from pydantic import Field

from limbeck.core.parts import part
from limbeck.core.types import Sample
from limbeck.data.perturbation._base import Perturbation, Refused, asking, question_of
from limbeck.data.perturbation._worked import NotCertain, Slot, Worked, number, read
from limbeck.data.word_problems import LARGEST_FACTOR, Step, apply, canonical, split_of, worked

_ATTEMPTS = 100
_PART_BEFORE = re.compile(
    r"(?:[A-Za-z/:#.^]|\d\s?[-–]"  # noqa: RUF001
    r"|\b(?i:number|grade|chapter|page|room|level|route|highway|january|february|march|april|may|june|july|august"
    r"|september|october|november|december)\s)$"
)
_PART_AFTER = re.compile(r"[A-Za-z/:^]|[-–]\s?\d|\s?[ap]\.?m\b|,\s?(?:19|20)\d\d")  # noqa: RUF001
_OWN = re.compile(r"(?s).*\nHow many \w+ now\?\n(?:\d+[-+*]\d+=\d+\. )+#### \d+")
"""Limbeck's own arithmetic problems: the question's last sentence, and the answer."""
_OWN_ATTEMPTS = 2000
"""Of the calculations that a test row may become, nine in ten belong to another split."""


@part
class ChangeNumbers(Perturbation):
    """Write other numbers into a word problem and work its answer out anew, by its own equations.

    The answer's equations, `<<48/2=24>>` or `48/2=24`, say how its numbers follow from the question's. A number is
    changed only where all that hangs on it is known; if nothing is certain, the sample is refused with a reason. New
    values keep the order of all values, their signs, and whether they are whole: so "more than 8 hours" stays so.
    The result is read and calculated once more before it is given.

    Limbeck's own arithmetic problems are read exactly, and a changed one belongs to the split of the old one.

    Reference:
        Mirzadeh et al., GSM-Symbolic: Understanding the Limitations of Mathematical Reasoning in Large Language
        Models, 2024, arXiv:2410.05229.
    """

    keeps_answer: ClassVar[bool] = False

    most: int | None = Field(default=None, ge=1)
    """How many numbers are changed at most. Left out: as many as can be."""
    reach: float = Field(default=0.5, gt=0, le=1)
    """How far a number moves: from (1 - reach) to (1 + reach) times what it was, by two at least."""
    maximum: int = Field(default=99, ge=2)
    """Of limbeck's own arithmetic problems: no number, given or computed, is above it, unless one was. That of the
    source, so that changed problems are not of larger numbers."""

    def change(self, sample: Sample, draws: np.random.Generator) -> Sample | Refused:
        question, answer = question_of(sample), sample.target
        if question is None or not isinstance(answer, str):
            return Refused("no_worked_answer")
        if _OWN.fullmatch(re.sub(r"\s(?=How many \w+ now\?$)", "\n", question) + "\n" + answer):
            return self._own(sample, question, answer, draws)
        try:
            problem = read(question, answer)
        except NotCertain as reason:
            return Refused(str(reason))
        free = [i for i in problem.free() if _may_change(question, problem.question[i])]
        if not free:
            return Refused("no_number_is_certain")
        new = self._drawn(problem, question, free, draws)
        if new is None:
            return Refused("no_fitting_numbers")
        values = problem.with_numbers(new)
        assert values is not None, "numbers that fit have a result"
        asked, told = _written(question, problem.question, values), _written(answer, problem.answer, values)
        if not _holds(asked, told, values[problem.final]):
            return Refused("result_not_confirmed")
        return replace(asking(sample, asked), target=told, meta=_renewed(sample, answer, values, problem))

    def _drawn(
        self, problem: Worked, question: str, free: Sequence[int], draws: np.random.Generator
    ) -> dict[int, Fraction] | None:
        """New numbers that fit; fewer and fewer of them are changed until some do."""
        size = len(free) if self.most is None else min(self.most, len(free))
        while size:
            for _ in range(_ATTEMPTS):
                chosen = [free[i] for i in sorted(draws.choice(len(free), size=size, replace=False))]
                new = {i: self._near(problem.question[i], draws) for i in chosen}
                if all(_same_article(question, problem.question[i], new[i]) for i in chosen) and _fits(problem, new):
                    return new
            size = size // 2
        return None

    def _near(self, slot: Slot, draws: np.random.Generator) -> Fraction:
        """A number of the same kind not far from a slot's: as many decimals, of money a whole number of cents."""
        unit = Fraction(1, 10 ** len(slot.text.partition(".")[2].rstrip("0")))
        was = int(number(slot.text) / unit)
        width = max(2, int(was * self.reach))
        moved = was + int(draws.integers(1, width + 1)) * (1 if draws.random() < 0.5 else -1)
        return moved * unit

    def _own(self, sample: Sample, question: str, answer: str, draws: np.random.Generator) -> Sample | Refused:
        """One of limbeck's own problems, whose calculation is a chain."""
        lines = re.findall(r"(\d+)([-+*])(\d+)=\d+\.", answer)
        start, steps = int(lines[0][0]), [(sign, int(operand)) for _, sign, operand in lines]
        told_apart = re.split(r"(\d+)", question)  # every second piece is a number
        given = [int(digits) for digits in told_apart[1::2]]
        if worked(start, steps)[0] != answer or given != [start, *(n for _, n in steps)]:
            return Refused("not_the_problem_of_the_question")
        largest = max([self.maximum, start, *_results(start, steps)])
        for _ in range(_OWN_ATTEMPTS):
            free = draws.permutation(len(given))[: self.most].tolist()
            others = _chain(given, [sign for sign, _ in steps], free, largest, draws)
            if others is None or others == given:
                continue
            chain = [(sign, n) for (sign, _), n in zip(steps, others[1:], strict=True)]
            if split_of(canonical(others[0], chain)) == split_of(canonical(start, steps)):
                told, result = worked(others[0], chain)
                numbers = iter(others)
                asked = "".join(str(next(numbers)) if i % 2 else text for i, text in enumerate(told_apart))
                meta = {**sample.meta, **({"result": result} if "result" in sample.meta else {})}
                return replace(asking(sample, asked), target=told, meta=meta)
        return Refused("no_fitting_numbers")


def recomputed(question: str, answer: str) -> tuple[str, Fraction]:
    """A worked answer written anew by its own equations, with the numbers as they are: the same text, if all is read.

    Returns:
        The text, and the final answer.

    Raises:
        NotCertain: the answer cannot be read as a calculation.
    """
    problem = read(question, answer)
    values = problem.with_numbers({})
    assert values is not None, "an equation that was read has a result"
    return _written(answer, problem.answer, values), values[problem.final]


def _chain(
    given: Sequence[int], signs: Sequence[str], free: Sequence[int], largest: int, draws: np.random.Generator
) -> list[int] | None:
    """A start and operands, some of them new, that keep every result from 0 to the largest; None if they do not."""
    value = int(draws.integers(2, largest + 1)) if 0 in free else given[0]
    numbers = [value]
    for i, sign in enumerate(signs, 1):
        low, high = (1, largest - value) if sign == "+" else (1, value)
        if sign == "*":
            low, high = 2, min(LARGEST_FACTOR, largest // value if value else 0)
        if high < low or (i not in free and not low <= given[i] <= high):
            return None
        numbers.append(int(draws.integers(low, high + 1)) if i in free else given[i])
        value = apply(value, (sign, numbers[-1]))
    return numbers


def _results(value: int, steps: Sequence[Step]) -> list[int]:
    found = []
    for step in steps:
        value = apply(value, step)
        found.append(value)
    return found


def _may_change(question: str, slot: Slot) -> bool:
    """Whether a number is an amount, and no part of a date, a time, a name, a fraction or a range."""
    before, after = question[: slot.span[0]], question[slot.span[1] :]
    if _PART_BEFORE.search(before) or _PART_AFTER.match(after):
        return False
    is_year = re.fullmatch(r"(?:1[5-9]|20)\d\d", slot.text) and not re.search(r"[$€£¥]\s?$", before)
    return number(slot.text) > 1 and not is_year


def _same_article(question: str, slot: Slot, new: Fraction) -> bool:
    """Whether "a" or "an" before a number still fits."""
    article = re.search(r"\b(an?)\s\$?$", question[: slot.span[0]], re.IGNORECASE)
    if article is None:
        return True
    whole = str(int(new))
    has_vowel = whole[0] == "8" or (whole[:2] in ("11", "18") and len(whole) % 3 == 2)
    return has_vowel == (article[1].lower() == "an")


def _fits(problem: Worked, new: Mapping[int, Fraction]) -> bool:
    """Whether new numbers give a problem of the same kind."""
    values = problem.with_numbers(new)
    if values is None or values[problem.final] == problem.values[problem.final].was:
        return False
    for value, now in zip(problem.values, values, strict=True):
        if now == value.was:
            continue
        if (now > 0) != (value.was > 0) or (now == 1) != (value.was == 1):
            return False
        places = 0 if value.was.denominator == 1 else max(2, _decimals(value.was))
        if (now * 10**places).denominator != 1:
            return False
    return all(values[one] < values[two] for one, two in problem.steps_up)


def _decimals(value: Fraction) -> int:
    """Digits behind the point of an exact decimal."""
    return next((n for n in range(10) if (value * 10**n).denominator == 1), 10)


def _written(text: str, slots: Sequence[Slot], values: Sequence[Fraction]) -> str:
    """A text with its numbers written as its slots had them: with commas, decimals or a bare point."""
    pieces, place = [], 0
    for slot in slots:
        pieces += [text[place : slot.span[0]], _like(slot.text, values[slot.sources[0]])]
        place = slot.span[1]
    return "".join([*pieces, text[place:]])


def _like(text: str, value: Fraction) -> str:
    if number(text) == value:
        return text
    places = len(text.partition(".")[2])
    places = max(_decimals(value), places if places == 2 or (places and value.denominator == 1) else 0)
    whole = f"{round(value * 10**places):0{places + 1}d}"
    digits, decimals = (whole[:-places], whole[-places:]) if places else (whole, "")
    digits = f"{int(digits):,}" if "," in text else digits
    if text.startswith(".") and digits == "0":
        digits = ""
    return f"{digits}.{decimals}" if decimals else digits


def _holds(question: str, answer: str, final: Fraction) -> bool:
    """Whether the new text, read by itself, is exact and comes to the new answer."""
    try:
        return recomputed(question, answer) == (answer, final)
    except NotCertain:
        return False


def _renewed(sample: Sample, answer: str, values: Sequence[Fraction], problem: Worked) -> dict[str, object]:
    """The row's other columns; a `result` that was the old answer becomes the new one."""
    was, now = problem.values[problem.final].was, values[problem.final]
    result = sample.meta.get("result")
    if isinstance(result, int | float) and not isinstance(result, bool) and Fraction(result) == was:
        return {**sample.meta, "result": int(now) if now.denominator == 1 else float(now)}
    return dict(sample.meta)
