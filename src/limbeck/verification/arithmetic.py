"""Equations within a text, read and worked out exactly.

An equation is a calculation of numbers, an equals sign and a result: `64 + 5 = 69`, `9 * 2 = $18`,
`\\frac{3}{4} = 0.75`, `1 - 1/4 = 3/4 = 75%`. Only what can be read for certain is judged: with letters, unknown
functions or units between its numbers a calculation is left alone.
"""

# ruff: noqa: RUF001 - signs of mathematics are meant
from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?![\d,])|\d+)(?:\.\d+)?|\.\d+"
_TOKEN = re.compile(
    rf"\s*(?:(?P<number>{_DIGITS})(?P<percent>\s?\\?%)?|(?P<sign>\*\*|[-−+*/×÷·^()x])|(?P<frac>\\[dt]?frac\s*\{{))"
)
_NAMES = {"−": "-", "×": "*", "÷": "/", "·": "*", "x": "*", "**": "^"}
_LATEX = (
    (re.compile(r"\\(?:times|cdot)(?![A-Za-z])"), "*"),
    (re.compile(r"\\div(?![A-Za-z])"), "/"),
    (re.compile(r"\\approx(?![A-Za-z])"), "≈"),
    (re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}"), r"((\1)/(\2))"),
    (re.compile(r"\\(?:left|right)(?![A-Za-z])|\\[,;:! ]|\\?[$€£¥￥]|\\[()\[\]]"), " "),
    (re.compile(r"\^\s*\{\s*(\d+)\s*\}"), r"^\1"),
    (re.compile(r"\\%"), "%"),
)
_ANNOTATION = re.compile(r"<<([^<>]*)>>")
_EQUALS = re.compile(r"(?<![<>!=:≤≥])=(?![=>])|≈")
_RUN = re.compile(rf"(?:(?:{_DIGITS})(?:\s?%)?|\*\*|[-−+*/×÷·^()]|(?<=[\d)%\s])x(?=\s*[\d(.])|\s)*", re.MULTILINE)
_BEFORE = re.compile(
    r"(?:√|\b(?:of|mod|over|choose|sin|cos|tan|log|ln|sqrt|root|per|divided|times|by|plus|minus|and)|\\\w+)\s*$"
    r"|(?<![A-Za-z])[B-HJ-Zb-z]\s*$"  # a variable: a factor that is not written with a sign
    r"|\b(?:columns|rows|pages|lines|steps|items|days|years|ages|grades|chapters|questions)\s*$"  # from - to
    r"|\d:$"  # a time of day, or a ratio
)
_AFTER = re.compile(r"\s*(?:[-+−*/×÷·^(!]\s*[\w\\(]|x\s*\d|\\\w|[_{°']|(?:mod|choose|remainder|of|r|R)\b)|[A-Za-z(^!√]")
_RESULT = re.compile(rf"\(?\s*[-−]?\s*(?:{_DIGITS})(?:\s*/\s*\d+)?\s*%?\s*\)?|\(\(\d+\)/\(\d+\)\)")
_LARGEST_POWER, _LARGEST_VALUE, _LONGEST = 64, 4096, 400
"""An exponent; bits of a power; characters of one side. What is beyond is not worked out."""


@dataclass(frozen=True)
class Equation:
    """A calculation and what it is said to be.

    Attributes:
        text: both sides, as they are written.
        left: the calculation's exact value.
        right: the exact value of what it is said to be.
        step: half of the last digit that the result is written with; 0 if it has no decimal places.
        percent: the result is written with a sign for percent.
        about: written with ≈.
    """

    text: str
    left: Fraction
    right: Fraction
    step: Fraction
    percent: bool
    about: bool

    def holds(self, rounded: bool = True) -> bool:
        """Whether it is true; with `rounded`, a result with decimal places may be rounded to these, or to a float's."""
        allowed = max(self.step, abs(self.left) / 10**14) if rounded and self.step else Fraction(0)
        if self.about:
            allowed = max(abs(self.left) / 20, self.step, Fraction(1, 2) if self.step == 0 else Fraction(0))
        if abs(self.left - self.right) <= allowed:
            return True
        # 1/4 = 25%, and as people write it: 1/4 * 100 = 25%
        return self.percent and abs(self.left - self.right * 100) <= allowed * 100


def equations(text: str) -> Iterator[Equation]:
    """The equations of a text that can be read for certain; annotations `<<9*2=18>>` come first."""
    for inside in _ANNOTATION.findall(text):
        yield from _of_line(inside)
    for line in _ANNOTATION.sub("", text).splitlines():
        yield from _of_line(line)


def _of_line(line: str) -> Iterator[Equation]:
    for pattern, plain in _LATEX:
        line = pattern.sub(plain, line)
    signs = list(_EQUALS.finditer(line))
    for i, sign in enumerate(signs):
        start = signs[i - 1].end() if i else 0
        stop = signs[i + 1].start() if i + 1 < len(signs) else len(line)
        left, right = _ending(line[start : sign.start()]), _beginning(line[sign.end() : stop], i + 1 < len(signs))
        if left is None or right is None or max(len(left), len(right)) > _LONGEST:
            continue
        if not _RESULT.fullmatch(right):
            continue  # a calculation put in other words, often in rounded ones, is no result
        one, other = value_of(left), value_of(right)
        if one is None or other is None:
            continue
        digits = re.fullmatch(r"\(?-?\s*[\d,]*\.(\d+)\s*(%?)\)?", right.replace("−", "-"))
        step = Fraction(1, 2 * 10 ** len(digits[1])) if digits else Fraction(0)
        if re.search(r"\.\d{10}", left):
            step = max(step, abs(one) / 10**9)  # it starts from what a float made of an earlier result
        percent = right.rstrip().endswith("%") and "%" not in left
        yield Equation(
            f"{left} {sign[0]} {right}",
            one,
            other,
            step / 100 if right.rstrip().endswith("%") else step,
            percent,
            sign[0] == "≈",
        )


def _ending(text: str) -> str | None:
    """The calculation that a text ends with, if it has an operator and nothing before it belongs to it."""
    best = None
    for found in _RUN.finditer(text):
        if found.end() == len(text.rstrip()) or found.end() == len(text):
            best = found
            break
    if best is None or not best[0].strip():
        return None
    run = best[0].lstrip()
    before = text[: best.end() - len(run)][-_LONGEST:]
    if len(run) > _LONGEST:
        return None
    if re.search(r"[A-Za-z_\\}\])'°%]$", before) or _BEFORE.search(before):
        return None
    if re.match(r"\s*[-−+*/×÷·^)]", run) and not re.match(r"\s*[-−]\d", run):
        return None
    if re.match(r"\s*[-−]", run) and re.search(r"[\w)]\s*$", before):
        return None  # a word before it: a difference of something, or a dash
    run = run.rstrip()
    return run if re.search(r"[\d)%]\s*(?:\*\*|[-−+*/×÷·^x])\s*[\d(.−-]", run) else None


def _beginning(text: str, goes_on: bool) -> str | None:
    """The number or calculation that a text begins with, if nothing after it belongs to it."""
    found = _RUN.match(text)
    if found is None or not found[0].strip() or len(found[0]) > _LONGEST:
        return None
    run, rest = found[0], text[found.end() :]
    run = re.sub(r"[-−+*/×÷·^(\s]+$", lambda m: "" if m[0].isspace() or goes_on is False else m[0], run)
    after = text[len(run) :]
    if (after[:1] in "," and re.match(r",\d", after)) or _AFTER.match(after if run else rest):
        return None
    return run.strip() or None


def value_of(text: str) -> Fraction | None:
    """The exact value of a calculation; None if it is none, or too large to work out."""
    tokens: list[str | Fraction] = []
    at = 0
    while at < len(text.rstrip()):
        found = _TOKEN.match(text, at)
        if found is None or found["frac"]:
            return None
        at = found.end()
        if found["number"]:
            value = Fraction(found["number"].replace(",", ""))
            tokens.append(value / 100 if found["percent"] else value)
        else:
            tokens.append(_NAMES.get(found["sign"], found["sign"]))
    try:
        reader = _Reader(tokens)
        value = reader.sum()
    except (ValueError, ZeroDivisionError, IndexError, RecursionError):
        return None
    return value if reader.at == len(tokens) else None


class _Reader:
    """Reads tokens from left to right, by rank of the operators."""

    def __init__(self, tokens: list[str | Fraction]):
        self.tokens: list[str | Fraction] = tokens
        self.at = 0

    def peek(self) -> str | Fraction | None:
        return self.tokens[self.at] if self.at < len(self.tokens) else None

    def take(self) -> str | Fraction:
        self.at += 1
        return self.tokens[self.at - 1]

    def sum(self) -> Fraction:
        value = self.product()
        while self.peek() in ("+", "-"):
            value = value + self.product() if self.take() == "+" else value - self.product()
        return value

    def product(self) -> Fraction:
        value = self.signed()
        while self.peek() in ("*", "/", "("):
            sign = "*" if self.peek() == "(" else self.take()
            value = value / self.signed() if sign == "/" else value * self.signed()
        return value

    def signed(self) -> Fraction:
        if self.peek() in ("-", "+"):
            return -self.signed() if self.take() == "-" else self.signed()
        return self.power()

    def power(self) -> Fraction:
        value = self.single()
        if self.peek() == "^":
            self.take()
            exponent = self.signed()
            bits = max(value.numerator.bit_length(), value.denominator.bit_length())
            if exponent.denominator != 1 or abs(exponent) > _LARGEST_POWER or bits * abs(exponent) > _LARGEST_VALUE:
                raise ValueError("a power that is not worked out")
            value = value ** int(exponent)
        return value

    def single(self) -> Fraction:
        token = self.take()
        if isinstance(token, Fraction):
            return token
        if token != "(":
            raise ValueError(token)
        value = self.sum()
        if self.take() != ")":
            raise ValueError("a bracket is not closed")
        return value
