"""Worked answers as calculations: which number of the text comes from where.

Every number in an equation must be a number of the question, the result of an earlier equation, or a constant that
words imply ("half", "week", "three"); every other number of the answer must be one of these too. Otherwise the
answer cannot be worked out anew with certainty, and the reason is told.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import pairwise

from limbeck.data.steps import NUMBER, steps_of

_ANNOTATION = re.compile(r"<<(?P<sum>[^<>=]*)=(?P<result>[^<>=]*)>>")
_SIGN = r"\s*(?:[-+*/×÷−x])\s*"  # noqa: RUF001
_DIGITS = r"(?:\d{1,3}(?:,\d{3})+|\d+)?(?:(?<=\d)\.\d+|(?<!\d)\.\d+|(?<=\d))"
_TERM = rf"\(*\s*\$?{_DIGITS}%?\s*\)*"
_EQUATION = re.compile(
    rf"(?<![\w.,])(?P<sum>{_TERM}(?:{_SIGN}{_TERM})+)\s*=\s*\$?(?P<result>{_DIGITS})(?![\w%(]|[.,]\d)"
)
_GOES_ON = re.compile(r"\s*[-+*/×÷−=]|\s+x\s")  # noqa: RUF001
_ALGEBRA = re.compile(
    r"(?<![A-Za-z'’])[B-HJ-Zb-hj-z](?![A-Za-z'’])\s*[-+*/=×÷]|[-+*/=×÷]\s*(?![xX]\s*[$\d.])[B-HJ-Zb-hj-z](?![A-Za-z'’])"  # noqa: RUF001
    r"|(?<![\w.])\d+(?:\.\d+)?[a-zA-Z](?![a-zA-Z\d])"
)
_WORDS = {
    "zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9,
    "ten": 10, "eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15, "sixteen": 16,
    "seventeen": 17, "eighteen": 18, "nineteen": 19, "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50,
    "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90, "hundred": 100,
}  # fmt: skip
_IMPLIED: dict[str, tuple[str, ...]] = {
    r"half|halves|halved": ("2", "1/2"),
    r"thirds?": ("3", "1/3", "2", "2/3"),
    r"quarters?|fourths?": ("4", "1/4", "3", "3/4", "25"),
    r"fifths?": ("5", "1/5"),
    r"twice|doubled?|doubles|doubling|both|pairs?|couples?|twins?|second|average|two-": ("2",),
    r"thrice|tripled?|triples|triplets?": ("3",),
    r"quadrupled?|quadruples|quartet": ("4",),
    r"dozens?": ("12",),
    r"scores?": ("20",),
    r"weeks?|weekly|daily|days?": ("7", "5", "2", "52", "24", "30", "31", "365"),
    r"weekdays?|workdays?|weekends?": ("5", "2", "7"),
    r"hours?|hourly|minutes?|seconds?|o'clock|noon|midnight|[ap]\.?m": ("60", "24", "12", "3600"),
    r"months?|monthly|years?|yearly|annual(?:ly)?|annum": ("12", "30", "31", "28", "4", "52", "365", "366", "10"),
    r"decades?": ("10",),
    r"century|centuries": ("100",),
    r"percent|per cent|percentage": ("100",),
    r"foot|feet|inch|inches": ("12", "3", "36"),
    r"yards?": ("3", "36"),
    r"miles?": ("5280", "1760"),
    r"pounds?|ounces?|pints?|quarts?|gallons?|cups?": ("16", "2", "4", "8", "32", "128"),
    r"cents?|pennies|penny|dollars?|nickels?|dimes?|meters?|metres?|centimeters?": ("100", "5", "10", "25", "1/10"),
    r"kilo\w+|kg|km|milli\w+|tons?|tonnes?|lit(?:er|re)s?|grams?": ("1000", "2000"),
    r"squares?|rectang\w+|perimeters?|sides?|triang\w+|corners?": ("4", "2", "3"),
}
"""Numbers that words bring along without saying them."""
_LONGEST = 100
"""Characters of a number; Python refuses to read the longest ones."""
_LONGEST_EQUATION = 400
"""Characters of one side; it is worked out by recursion."""


class NotCertain(Exception):
    """Why a worked answer cannot be read as a calculation."""


@dataclass(frozen=True)
class Value:
    """A number that the problem knows.

    Attributes:
        was: what it is in the text.
        calculation: how it comes about; None for a number that is given.
        uses: of each name in the calculation: the value's place.
        depends: numbers of the question that it hangs on, by place.
    """

    was: Fraction
    calculation: ast.expr | None = None
    uses: tuple[int, ...] = ()
    depends: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Slot:
    """A number in a text.

    Attributes:
        span: where it stands.
        text: how it is written.
        sources: the values that it may be; more than one if the text does not say which.
    """

    span: tuple[int, int]
    text: str
    sources: tuple[int, ...]


@dataclass(frozen=True)
class Worked:
    """A worked answer as a calculation.

    Attributes:
        values: all that is known: the question's numbers first, one for each slot.
        question: the question's numbers.
        answer: the answer's numbers.
        final: the place of the final answer among the values.
    """

    values: tuple[Value, ...]
    question: tuple[Slot, ...]
    answer: tuple[Slot, ...]
    final: int

    def with_numbers(self, new: Mapping[int, Fraction]) -> list[Fraction] | None:
        """All values when some of the question's numbers are others; None where a division has no result."""
        now: list[Fraction] = []
        for i, value in enumerate(self.values):
            if value.calculation is None:
                now.append(new.get(i, value.was))
                continue
            try:
                now.append(evaluate(value.calculation, [now[k] for k in value.uses]))
            except ZeroDivisionError:
                return None
        return now

    @cached_property
    def steps_up(self) -> list[tuple[int, int]]:
        """Pairs of values of which the second is the next larger one."""
        order = sorted(range(len(self.values)), key=lambda i: self.values[i].was)
        return [(one, two) for one, two in pairwise(order) if self.values[one].was < self.values[two].was]

    def free(self) -> list[int]:
        """Numbers of the question that can be changed with certainty, by place.

        The final answer hangs on them, and wherever the answer's text leaves open which of several values a number
        is, none of these would change.
        """
        unclear = [{i for s in slot.sources for i in self.values[s].depends} for slot in self.answer]
        bound = {i for slot, whose in zip(self.answer, unclear, strict=True) if len(slot.sources) > 1 for i in whose}
        return sorted(self.values[self.final].depends - bound)


def number(text: str) -> Fraction:
    """The exact value of digits.

    Raises:
        ValueError: the text is something else.
    """
    plain = text.replace(",", "").rstrip("%")
    if not re.fullmatch(r"-?(?:\d+(?:\.\d*)?|\.\d+)", plain):
        raise ValueError(text)
    return Fraction(plain)


def evaluate(tree: ast.expr, values: Sequence[Fraction]) -> Fraction:
    """The exact value of a calculation whose names are `n0`, `n1`, ...

    Raises:
        NotCertain: it is more than sums, differences, products and quotients.
        ZeroDivisionError: it divides by zero.
    """
    if isinstance(tree, ast.Name):
        return values[int(tree.id[1:])]
    if isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.USub | ast.UAdd):
        inner = evaluate(tree.operand, values)
        return -inner if isinstance(tree.op, ast.USub) else inner
    if isinstance(tree, ast.BinOp):
        left, right = evaluate(tree.left, values), evaluate(tree.right, values)
        if isinstance(tree.op, ast.Add):
            return left + right
        if isinstance(tree.op, ast.Sub):
            return left - right
        if isinstance(tree.op, ast.Mult):
            return left * right
        if isinstance(tree.op, ast.Div):
            return left / right
    raise NotCertain("equation_not_read")


def read(question: str, answer: str) -> Worked:
    """Read a question and its worked answer.

    Raises:
        NotCertain: a number has no known source, an equation is not exact, or there is no final answer.
    """
    if _ALGEBRA.search(_ANNOTATION.sub(" ", answer)) or re.search(r"<<[^<>=]*[A-Za-z]", answer):
        raise NotCertain("algebra")
    return _Reader(question, answer).read()


class _Reader:
    """Goes through the answer from left to right and knows what is known so far."""

    def __init__(self, question: str, answer: str):
        self.question, self.answer = question, answer
        self.values: list[Value] = []
        self.by_value: dict[Fraction, list[int]] = {}
        self.known: dict[tuple[str, tuple[int, ...]], int] = {}
        self.slots: list[Slot] = []
        self.implied = _implied(f"{question}\n{answer}")

    def read(self) -> Worked:
        numbers = list(_numbers(self.question))
        asked = []
        for i, (start, end) in enumerate(numbers):
            self._add(Value(number(self.question[start:end]), depends=frozenset([i])))
            asked.append(Slot((start, end), self.question[start:end], (i,)))
        for i, (_, end) in enumerate(numbers):
            if re.match(r"\s?(?:%|percent|per cent)", self.question[end:]):
                share = ast.parse("n0 / n1", mode="eval").body
                hundred = self._constant(Fraction(100))
                self._add(Value(self.values[i].was / 100, share, (i, hundred), frozenset([i])))
        for constant in (Fraction(1), *sorted(_said(f"{self.question}\n{self.answer}", self.question))):
            self._constant(constant)
        last = self._steps()
        return Worked(tuple(self.values), tuple(asked), tuple(self.slots), last)

    def _steps(self) -> int:
        """Read the answer; the place of its final value."""
        stated = [step for step in steps_of(self.answer, self.question) if step.answers and step.at is not None]
        if not stated or stated[-1].at is None:
            raise NotCertain("no_final_answer")
        at, last, place = stated[-1].at, None, 0
        for start, end, total, result in self._equations():
            self._text(place, start, at)
            last = self._equation(total, result)
            place = end
        if last is None:
            raise NotCertain("no_equation")
        self._text(place, at[0], at)
        final = self.answer[at[0] : at[1]].strip("$ ")
        try:
            told = number(final)
        except ValueError as error:
            raise NotCertain("final_answer_is_no_number") from error
        if told != self.values[last].was:
            raise NotCertain("final_answer_is_not_the_last_result")
        begin = self.answer.index(final, at[0])
        self.slots.append(Slot((begin, begin + len(final)), final, (last,)))
        self._text(begin + len(final), len(self.answer), at)
        return last

    def _equations(self) -> Iterator[tuple[int, int, tuple[int, int], tuple[int, int]]]:
        """Where the equations stand: their whole, what is calculated, and the result."""
        found = [*_ANNOTATION.finditer(self.answer)]
        taken = [each.span() for each in found]
        for each in _EQUATION.finditer(self.answer):
            inside = any(start < each.end() and each.start() < end for start, end in taken)
            if not inside and not _GOES_ON.match(self.answer[each.end() :]):
                found.append(each)
        for each in sorted(found, key=lambda one: one.start()):
            yield each.start(), each.end(), each.span("sum"), each.span("result")

    def _equation(self, total: tuple[int, int], result: tuple[int, int]) -> int:
        """Read one equation; the place of its result."""
        text, uses, written, place = self.answer[total[0] : total[1]], [], "", 0
        if len(text) > _LONGEST_EQUATION:
            raise NotCertain("equation_not_read")
        for start, end in _numbers(text):
            uses.append(self._source(total[0] + start, total[0] + end))
            is_share = text[end : end + 1] == "%"
            term = f"n{len(uses) - 1}"
            if is_share:
                uses.append(self._constant(Fraction(100)))
                term = f"({term}/n{len(uses) - 1})"
            written += text[place:start] + term
            place = end + is_share
        written += text[place:]
        plain = written.replace("$", "").replace("×", "*").replace("÷", "/").replace("−", "-")  # noqa: RUF001
        plain = re.sub(r"(?<=[\w)\s])[xX](?=[\s(n])", "*", plain).strip()
        try:
            tree = ast.parse(plain, mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise NotCertain("equation_not_read") from error
        try:
            value = evaluate(tree, [self.values[i].was for i in uses])
            told = number(self.answer[result[0] : result[1]].strip().strip("$%"))
        except (ZeroDivisionError, ValueError) as error:
            raise NotCertain("equation_not_read") from error
        if value != told:
            raise NotCertain("equation_not_exact")
        place = self._result(tree, tuple(uses), value)
        for start, end in _numbers(self.answer[result[0] : result[1]]):
            span = (result[0] + start, result[0] + end)
            self.slots.append(Slot(span, self.answer[span[0] : span[1]], (place,)))
        return place

    def _result(self, tree: ast.expr, uses: tuple[int, ...], value: Fraction) -> int:
        """The place of a result; one that is calculated twice in the same way is one value."""
        if isinstance(tree, ast.Name):
            return uses[int(tree.id[1:])]
        key = ast.dump(tree), uses
        if key not in self.known:
            depends = frozenset(i for k in uses for i in self.values[k].depends)
            self.known[key] = self._add(Value(value, tree, uses, depends))
        return self.known[key]

    def _text(self, start: int, end: int, final: tuple[int, int]) -> None:
        """Numbers between equations."""
        for begin, stop in _numbers(self.answer[start:end]):
            begin, stop = start + begin, start + stop
            if begin >= final[0] and stop <= final[1]:
                continue
            outer = re.search(r">>\s*\$?$", self.answer[:begin])
            if outer and self.slots and number(self.slots[-1].text) == number(self.answer[begin:stop]):
                self.slots.append(Slot((begin, stop), self.answer[begin:stop], self.slots[-1].sources))
            else:
                self._source(begin, stop)

    def _source(self, start: int, end: int) -> int:
        """Take note of a number of the answer; the first of the values that it may be."""
        text = self.answer[start:end]
        if number(text) in self.implied:
            self._constant(number(text))
        sources = tuple(self.by_value.get(number(text), ()))
        if not sources:
            raise NotCertain("number_without_source")
        self.slots.append(Slot((start, end), text, sources))
        return sources[0]

    def _constant(self, value: Fraction) -> int:
        fixed = [i for i in self.by_value.get(value, ()) if not self.values[i].depends]
        return fixed[0] if fixed else self._add(Value(value))

    def _add(self, value: Value) -> int:
        self.values.append(value)
        self.by_value.setdefault(value.was, []).append(len(self.values) - 1)
        return len(self.values) - 1


def _numbers(text: str) -> Iterator[tuple[int, int]]:
    """Where numbers stand, without their signs."""
    for found in NUMBER.finditer(text):
        start, end = found.span()
        start += text[start] in "-−"  # noqa: RUF001
        if not re.fullmatch(r"[\d.,]+", text[start:end]):
            raise NotCertain("power_of_ten")
        if end - start > _LONGEST:
            raise NotCertain("number_too_long")
        yield start, end


def _implied(text: str) -> set[Fraction]:
    """Constants that words bring along without saying them: they count where the answer uses them."""
    found = {Fraction(100)} if "%" in text else set()
    for words, numbers in _IMPLIED.items():
        if re.search(rf"\b(?:{words})\b", text, re.IGNORECASE):
            found |= {Fraction(value) for value in numbers}
    return found


def _said(text: str, question: str) -> set[Fraction]:
    """Numbers in words, and fractions of the question with their parts."""
    found = set()
    for word in re.findall(r"[a-z]+(?:-[a-z]+)?", text.lower()):
        parts = word.split("-")
        if all(part in _WORDS for part in parts):
            found.add(Fraction(sum(_WORDS[part] for part in parts)))
    for above, below in re.findall(r"(?<![\d/.])(\d+)/(\d+)(?![\d/])", question):
        found |= {Fraction(int(above)), Fraction(int(below))}
        found |= {Fraction(int(above), int(below))} if int(below) else set()
    return found
