"""Final answers, read out of what a model wrote.

An answer is marked, or it is plain:

    tag       <answer>94</answer>
    boxed     \\boxed{94}, with braces inside
    hashes    #### 94
    stated    The answer is 94.   Answer: 94   A: 94   答案是94
    plain     the last number of the last line, or a lone letter

The last marked answer counts, whichever mark it bears: a model that corrects itself does so later in the text. What is
plain counts only if nothing is marked. The thought is not looked at.
"""

# ruff: noqa: RUF001 - signs of mathematics and of Chinese text are meant
from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from limbeck.data.steps import NUMBER, canonical

Form = Literal["tag", "boxed", "hashes", "stated", "plain"]
FORMS: tuple[Form, ...] = ("tag", "boxed", "hashes", "stated", "plain")
"""All forms in which an answer is recognised."""

_MARKED = re.compile(
    r"<answer>(?P<tag>[^<]{0,2000})</answer>"
    r"|(?P<boxed>\\f?box(?:ed)?\s*\{)"
    r"|####[ \t]*(?P<hashes>\S[^\n]*)"
    r"|^[ \t]*A:[ \t]*(?P<line>[^\n]+)"
    r"|(?:\banswer\b|答案)(?:\s+(?:to|in|of|for)\b[^.\n:=<]{0,60}?)?[\s*_\"”】\])]{0,6}"
    r"(?:\b(?:is|are|was|should\s+be|would\s+be|must\s+be)\b|:|：|=|应该是|应该为|应为|应选|选|是|为)"
    r"(?P<stated>[^\n]{1,300})",
    re.IGNORECASE | re.MULTILINE,
)
_SENTENCE = re.compile(r"[.!?](?=\s|$)|[。！？；]")
_EDGES = " \t\r\n*_`\"'“”.,;:，。；：!！"
_PLAIN = re.compile(
    rf"(?:\\?[$€£¥￥]\s*)?(?P<sign>[-−+]\s*)?(?:\\?[$€£¥￥]\s*)?(?P<number>{NUMBER.pattern})"
    r"(?:\s*/\s*(?P<below>\d{1,30}))?\s*(?P<percent>\\?%|percent\b|per\s+cent\b)?"
    r"\s*(?P<words>[^\W\d_][^\W\d_\s'’.-]*(?:[\s'’.-]+[^\W\d_]+)*)?",
    re.IGNORECASE,
)
_FRACTION = re.compile(r"(?<![\d.])\\[dtc]?frac\s?\{(\d{1,30})\}\s?\{(\d{1,30})\}\Z")
_PARTS = re.compile(r"\b(?:half|halves|thirds?|quarters?|fourths?|fifths?|tenths?)\b", re.IGNORECASE)
"""With such a word behind it a number is another: 6 and a half, 2 thirds."""
_SCALES = {
    "dozen": 12,
    "hundred": 100,
    "thousand": 10**3,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
    "百": 100,
    "千": 10**3,
    "万": 10**4,
    "亿": 10**8,
}
_LATEX_TEXT = re.compile(r"\\(?:text|mathrm|textbf|mathbf|textit|mbox)\s*\{([^{}]*)\}|\\[,;:! ]|\\left|\\right")
_THOUGHT = re.compile(r"\A.*</think>", re.DOTALL)
_FENCE = re.compile(
    r"(?P<indent>^[ \t]*|(?<=\s))```[ \t]*+(?P<language>[\w+#.-]*+)[^\n`]*+\n(?P<inside>.*?)(?:^[ \t]*```|```[ \t]*$)",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Found:
    """A final answer.

    Attributes:
        form: how it was recognised.
        text: what it says, without its mark.
    """

    form: Form
    text: str


@dataclass(frozen=True)
class Number:
    """A plain number; `is_share` if it is written with a sign for percent, which `value` leaves out."""

    value: Fraction
    is_share: bool = False

    def equals(self, other: Number, tolerance: float = 0.0) -> bool:
        """Whether both are the same number, up to a relative tolerance; 50 % equals 50 and 0.5 if these are plain."""
        own, its = {self.value}, {other.value}
        if self.is_share != other.is_share:
            own |= {self.value / 100} if self.is_share else set()
            its |= {other.value / 100} if other.is_share else set()
        return any(abs(a - b) <= Fraction(tolerance) * max(abs(a), abs(b)) for a in own for b in its)


def without_thought(content: str) -> str | None:
    """An answer without a thought that stands in it; None if the thought is never closed."""
    rest = _THOUGHT.sub("", content)
    return None if "<think>" in rest else rest


def fenced(text: str, languages: Collection[str]) -> list[str]:
    """The fenced blocks of a text.

    Args:
        text: what was said.
        languages: blocks in others are passed over; `""` stands for those that name none.
    """
    return [
        re.sub(f"^{found['indent']}", "", found["inside"], flags=re.MULTILINE)
        for found in _FENCE.finditer(text)
        if found["language"].lower() in languages
    ]


def marked(content: str, forms: Collection[str] = FORMS) -> Iterator[Found]:
    """The marked answers of a text, in order.

    Args:
        content: the answer, without its thought.
        forms: which marks count.
    """
    at, closings = 0, _closings(content)
    while found := _MARKED.search(content, at):
        at = found.end()
        name = str(found.lastgroup)
        text = found[name]
        if name == "boxed":
            closing = closings.get(found.end())
            text = None if closing is None else content[found.end() : closing]
        elif name == "line":
            name = "stated"
        if name == "stated":
            at = found.start(str(found.lastgroup))  # a mark may follow within the same line
        if text is not None and name in forms and text.strip(_EDGES):
            yield Found(name, text.strip())  # type: ignore[arg-type]


def _closings(text: str) -> dict[int, int]:
    """Where each brace is closed, by the place behind it; one look at the text, however many braces it opens."""
    opened: list[int] = []
    closed: dict[int, int] = {}
    for brace in re.finditer(r"(?<!\\)[{}]", text):
        if brace[0] == "{":
            opened.append(brace.end())
        elif opened:
            closed[opened.pop()] = brace.start()
    return closed


def cleaned(text: str) -> str:
    """An answer without what only decorates it: dollar signs of formulas, bold type, `\\text`, a full stop."""
    # Single spaces: patterns that follow would try every way to share a long run of them out.
    text = " ".join(_LATEX_TEXT.sub(lambda m: m[1] or " ", text).split())
    text = re.sub(r"^\s*(?:\\[(\[]|\$\$?)|(?:\\[)\]]|\$\$?)\s*(?=[.。]?\s*$)", "", text.strip(_EDGES))
    return text.strip(_EDGES)


def number_of(text: str) -> Number | None:
    """A text that is one number, perhaps with a currency or a unit in words; None if it is more than that."""
    found = _PLAIN.fullmatch(_FRACTION.sub(r"\1/\2", cleaned(text)))
    if found is None or _PARTS.search(found["words"] or ""):
        return None
    plain = canonical(found["number"])
    if not re.fullmatch(r"-?\d{1,2000}(?:\.\d{1,2000})?(?:E[-+]?\d{1,3})?", plain):
        return None  # Python refuses to read the longest ones
    value = Fraction(plain)
    if found["below"]:
        below = int(found["below"])
        if below == 0:
            return None
        value /= below
    first = (found["words"] or "").lower().split()
    if first:
        value *= next((scale for word, scale in _SCALES.items() if first[0].rstrip("s") == word), 1)
    sign = -1 if found["sign"] and found["sign"][0] in "-−" else 1
    return Number(sign * value, is_share=found["percent"] is not None)


def final_value(content: str, forms: Collection[str] = FORMS, *, cut_off: bool = False) -> Found | None:
    """The final answer of a text whose answer is a number or a formula.

    Args:
        content: what was said; a thought in it is not looked at.
        forms: what counts as an answer.
        cut_off: the text ends where its budget ended, so that its last number is no answer.

    Returns:
        The last marked answer, else a plain one; None if there is none.
    """
    rest = without_thought(content)
    if rest is None:
        return None
    last = None
    for found in marked(rest, forms):
        if found.form != "stated":
            last = found
            continue
        text = _SENTENCE.split(found.text)[0] if _SENTENCE.search(found.text) else found.text
        text = re.split(r"\\f?box(?:ed)?\b|<", text)[0]
        if re.match(r"[^\n]{0,30}?[\d\\]|[^\w\n]{0,8}[A-Za-z]\W{0,4}$", text):
            last = Found("stated", text)
    if last is not None or "plain" not in forms or cut_off:
        return last
    line = next((line for line in reversed(rest.splitlines()) if line.strip()), "")
    numbers = list(NUMBER.finditer(line))
    return Found("plain", numbers[-1][0]) if numbers else None


_LETTER = r"(?<![A-Za-z])(?P<{name}>(?!I\s+(?!because\b|since\b|as\b|for\b)[a-z])[{letters}])(?![A-Za-z'’])"
_AND = r"[\s).}}\]*$]*(?:,|/|、|&|and\b|or\b|和|或)[\s(\[*$]*(?:option\s*)?[{letters}](?![A-Za-z'’])"
_OPENING = r"[\s:：*_(（\[$【\"“\\]*(?:(?:(?i:option|choice)|选项|选择)[\s:：*_(（\[$]*)?"


def final_choice(content: str, labels: str, forms: Collection[str] = FORMS, *, cut_off: bool = False) -> str | None:
    """The letter of the option that a text decides for.

    Args:
        content: what was said; a thought in it is not looked at.
        labels: the letters there are.
        forms: what counts as an answer; `plain` is `option B`, `B is correct`, or a last line that is a letter.
        cut_off: the text ends where its budget ended, so that only marked answers count.

    Returns:
        The letter, as it stands in `labels`; two letters with a comma between them if the text names more than one;
        None if it names none.
    """
    rest = without_thought(content)
    if rest is None:
        return None
    letters = re.escape(labels)
    letter = _LETTER.format(name="letter", letters=letters)
    last = None
    for found in marked(rest, forms):
        text = _LATEX_TEXT.sub(lambda m: m[1] or " ", found.text)
        if hit := re.match(_OPENING + letter, text):
            others = re.match(_AND.format(letters=letters), text[hit.end() :])
            last = hit["letter"] + ("," + others[0].rstrip()[-1] if others else "")
    if last is not None or "plain" not in forms or cut_off:
        return last
    one, other = (_LETTER.format(name=name, letters=letters) for name in "ab")
    said = re.compile(
        rf"(?i:\b(?:option|choice)|选项|故选|应选|所以选|因此选|答[:：])[\s:：*(（是为]*{one}"
        rf"|(?:^|[\s(*]){other}[).*]*\s+is\s+(?:the\s+)?(?:correct|right|best)",
        re.MULTILINE,
    )
    hits = [hit["a"] or hit["b"] for hit in said.finditer(rest)]
    line = next((line for line in reversed(rest.splitlines()) if line.strip()), "")
    alone = re.match(rf"[\s*(（\[$]*{letter}[*$]*(?:[)）\].:：]|\s*$)", line)
    if alone and (len(rest.split()) < 30 or re.fullmatch(rf"[\W_]*{letter}[\W_]*", line)):
        return alone["letter"]
    return hits[-1] if hits else None
