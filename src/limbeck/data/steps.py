"""Worked answers and reasoning traces, cut into steps: pure text, every character kept.

A step is a stretch of text that gets somewhere: an equation, a stated value, a numbered item, a paragraph. Steps tile
their text: put together they are the text again, character by character.

Where a text is cut:

    after a sentence or line with an equation            64+5=69. | 69+25=94. |
    after and before a sentence that gives the answer    #### 94, \\boxed{94}, The answer is 94, 答案是94
    at the items of a list that counts from 1            1. ... | 2. ..., Step 1: ... | Step 2: ...
    at blank lines (but not within an item), and after </think>

A step's conclusion is the value of its last equation or the value that it states; a step uses an earlier one if it
mentions a number that equals the earlier conclusion. Numbers in words are not read.
"""

# ruff: noqa: RUF001 - signs of mathematics and of Chinese text are meant
from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal

_EXACT = Context(prec=1000)
"""Digits that two numbers are compared by; Python's 28 would call long numbers equal that are not."""

# Atomic groups (?>...) keep a number whole: in "= 0.2*50" the engine must not settle for "= 0".
_DIGITS = r"(?>(?>\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)"
_POWER = r"(?>(?:\s*(?:×|\\times|\*|·|\\cdot)\s*10\s*\^\s*\{?[-−]?\d+\}?)|[eE][-+]?\d+)"
_NUMBER = rf"(?>(?:(?<![\w)\]%.}}])[-−])?{_DIGITS}{_POWER}?)"
_MONEY = r"(?:\\?[$€£¥￥]\s*)?"
_GOES_ON = r"(?!\w*\(|\w*\s*(?:[+*/×÷^·=]|[-−]\s*\d|x\s*\d|\\times|\\cdot|\\div|\\frac))"
"""After a number that is a value, and not the beginning of a calculation, none of these stands."""

NUMBER = re.compile(_NUMBER)
_EQUALS = r"(?:(?<![<>!=])=(?!=)|≈|\\approx|等于)"
_ANNOTATION = re.compile(rf"<<[^<>]*=\s*(?P<inside>{_NUMBER})>>(?:\s*{_MONEY}(?P<value>{_NUMBER}))?")
_EQUATION = re.compile(rf"(?<=[\w)\]}}%\s$°]){_EQUALS}\s*{_MONEY}(?P<value>{_NUMBER}){_GOES_ON}")
_ANSWER = re.compile(
    rf"####\s*(?P<hashes>\S(?:.*\S)?)"
    rf"|\\boxed\s*\{{(?P<boxed>[^{{}}]*)\}}"
    rf"|^[^\S\n]*A:\s*{_MONEY}(?P<line>{_NUMBER})"
    rf"|(?:(?i:\banswer)|答案)\W{{0,4}}(?i:\b(?:is|are|was)\b|should be|would be|:|：|=|应该是|应为|是|为)"
    rf"(?:(?i:option\b)|[\s*:：(（$\\]|\\text\{{)*(?P<stated>{_NUMBER}|[A-HJ](?![A-Za-z'])|I(?=[).*}}]|$))",
    re.MULTILINE,
)
_THEREFORE = re.compile(r"\s*(?:(?i:so|thus|hence|therefore|in total|altogether)\b|因此|所以|故|一共|总共|共)")

_UNIT = re.compile(
    r"""
    (?: [.!?]+["')\]*”’]*(?=\s|<|$)\s* | [。！？；]+[”’」）]*\s* | (?<!\s)\s*\n\s* | (?=</think>) )
    (?:</think>\s*)?
    """,
    re.VERBOSE,
)
_ITEM = re.compile(
    r"^[ \t]*(?:\#{1,6}[ ]*)?(?:\*\*)?"
    r"(?:(?i:step)[ ]*(?P<step>\d+)\b|第(?P<chinese>\d+)步|步骤(?P<stride>\d+)|(?P<plain>\d+)(?:[.)][ \t]|、))",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Step:
    """One step of a text.

    Attributes:
        text: what it says, with the whitespace behind it.
        start: where it begins in the whole text.
        conclusion: the value that it arrives at, in canonical form; None where it states none.
        at: where that value stands in the whole text, from and to.
        uses: positions of the earlier steps whose conclusions it mentions.
        given: numbers of the question that it mentions, in canonical form.
        answers: it gives the final answer.
    """

    text: str
    start: int
    conclusion: str | None = None
    at: tuple[int, int] | None = None
    uses: tuple[int, ...] = ()
    given: tuple[str, ...] = ()
    answers: bool = False

    @property
    def end(self) -> int:
        """Where it ends in the whole text."""
        return self.start + len(self.text)


@dataclass(frozen=True)
class _Value:
    value: str
    at: tuple[int, int]
    is_new: bool
    """Worked out here, by an equation, and not a repetition of what an earlier step found."""
    answers: bool = False


def canonical(number: str) -> str:
    """One form for equal numbers: 1,000 and 1000.0 are the same; what is no number stays as it is."""
    plain = number.strip().replace(",", "").replace("−", "-")
    plain = re.sub(r"(?<!\s)\s*(?:×|\\times|\*|·|\\cdot)\s*10\s*\^\s*\{?(-?\d+)\}?$", r"E\1", plain)
    try:
        return str(_EXACT.add(_EXACT.normalize(Decimal(plain)), 0))
    except ArithmeticError:  # no number, or one beyond all bounds
        return number.strip()


def steps_of(text: str, question: str = "") -> list[Step]:
    """The steps of a worked answer.

    Args:
        text: the answer, or a trace with or without `<think>`.
        question: what was asked; its numbers are what steps may start from.

    Returns:
        Steps in order, whose texts put together are `text`; none for an empty text.
    """
    known = {canonical(found[0]) for found in NUMBER.finditer(question)}
    steps: list[Step] = []
    last: dict[str, int] = {}  # the latest step that came to a conclusion
    for start, end, found in _spans(text):
        part = text[start:end]
        mentioned = _mentioned(part, start, found)
        uses = tuple(sorted({last[number] for number in mentioned if number in last}))
        given = tuple(sorted(number for number in mentioned if number in known and number not in last))
        if found is None:
            steps.append(Step(part, start, uses=uses, given=given))
            continue
        last[found.value] = len(steps)
        steps.append(Step(part, start, found.value, found.at, uses, given, found.answers))
    return steps


def joined(steps: Sequence[Step], most: int | None = None) -> list[Step]:
    """The same text in steps that each come to a conclusion: one without it joins the next that has one.

    Args:
        steps: of one text.
        most: no more steps than these; all the rest join the last one. None: as many as there are.
    """
    groups: list[list[int]] = [[]]
    for i, step in enumerate(steps):
        groups[-1].append(i)
        if step.conclusion is not None and i + 1 < len(steps):
            groups.append([])
    if len(groups) > 1 and all(steps[i].conclusion is None for i in groups[-1]):
        groups[-2:] = [groups[-2] + groups[-1]]
    if most is not None and len(groups) > most:
        groups[most - 1 :] = [[i for group in groups[most - 1 :] for i in group]]
    place = {i: at for at, group in enumerate(groups) for i in group}
    return [_join([steps[i] for i in group], at, place) for at, group in enumerate(groups) if group]


def _join(steps: Sequence[Step], at: int, place: dict[int, int]) -> Step:
    told = next((s for s in reversed(steps) if s.conclusion is not None), steps[-1])
    uses = sorted({place[i] for step in steps for i in step.uses} - {at})
    given = sorted({number for step in steps for number in step.given})
    text = "".join(step.text for step in steps)
    return Step(text, steps[0].start, told.conclusion, told.at, tuple(uses), tuple(given), told.answers)


def _spans(text: str) -> Iterator[tuple[int, int, _Value | None]]:
    """Where each step begins and ends, and what it arrives at."""
    items, start, in_list, arrived = _items(text), 0, False, None
    units = [(begin, end, _value(text, begin, end)) for begin, end in _units(text, items)]
    for i, (begin, end, found) in enumerate(units):
        arrived = found or arrived
        thought = "</think>" in text[begin:end]
        if begin in items:
            in_list = True
        if thought or (found is not None and found.answers):
            in_list = False  # nothing else tells where the last item of a list ends
        is_last = i + 1 == len(units)
        follows = None if is_last else units[i + 1][2]
        blank = re.search(r"\n[ \t]*\n\s*$", text[begin:end]) is not None
        cut = end in items or thought or (follows is not None and follows.answers)
        cut = cut or (not in_list and (found is not None or blank))
        if is_last or (cut and text[start:end].strip()):
            yield start, end, arrived
            start, arrived = end, None


def _units(text: str, items: set[int]) -> Iterator[tuple[int, int]]:
    """Sentences and lines with the whitespace behind them: the least that is never cut."""
    start = 0
    ends = {found.end() for found in _UNIT.finditer(text)} | items | {len(text)}
    for end in sorted(ends):
        if end > start:
            yield start, end
            start = end


def _items(text: str) -> set[int]:
    """Where the items of lists begin that count 1, 2, 3, ..."""
    found: set[int] = set()
    run: list[int] = []
    for item in _ITEM.finditer(text):
        number = int(next(value for value in item.groups() if value is not None))
        if number != len(run) + 1:
            found |= set(run) if len(run) > 1 else set()
            run = []
        if number == len(run) + 1:
            run.append(item.start())
    return found | (set(run) if len(run) > 1 else set())


def _value(text: str, begin: int, end: int) -> _Value | None:
    """The value that a sentence arrives at."""
    text = text[begin:end]
    if answers := list(_ANSWER.finditer(text)):
        found = answers[-1]
        name = str(found.lastgroup)
        return _Value(canonical(found[name].strip("$*. ")), _moved(found.span(name), begin), False, answers=True)
    equations = sorted((*_EQUATION.finditer(text), *_ANNOTATION.finditer(text)), key=lambda each: each.end())
    if equations:
        found = equations[-1]
        name = "value" if found["value"] is not None else "inside"
        return _Value(canonical(found[name]), _moved(found.span(name), begin), is_new=True)
    if _THEREFORE.match(text) and (numbers := list(NUMBER.finditer(text))):
        return _Value(canonical(numbers[-1][0]), _moved(numbers[-1].span(), begin), is_new=False)
    return None


def _moved(span: tuple[int, int], by: int) -> tuple[int, int]:
    return span[0] + by, span[1] + by


def _mentioned(text: str, start: int, found: _Value | None) -> list[str]:
    """Numbers that a step starts from: all but the results of its equations."""
    results = [each.span("value") for each in _EQUATION.finditer(text)]
    for each in _ANNOTATION.finditer(text):
        results += [each.span("inside"), each.span("value")]
    if found is not None and found.is_new:
        results.append(_moved(found.at, -start))
    starts = {begin for begin, _ in results}
    return sorted({canonical(number[0]) for number in NUMBER.finditer(text) if number.start() not in starts})
