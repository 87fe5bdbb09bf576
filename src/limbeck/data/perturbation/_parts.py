"""What a change of letters or words must not touch, because the answer hangs on it."""

from __future__ import annotations

import re
from collections.abc import Callable

HAN = re.compile(r"[\u4e00-\u9fff]")
"""A Chinese character."""
_CHINESE_NUMERALS = "零〇一二三四五六七八九十百千万亿两半几第"
_HELD = re.compile(
    r"<[^<>]*>|`[^`]*`|\\[A-Za-z]+|\$[^$]*\$"  # tags, code, formulas
    r"|(?<![A-Za-z])[A-Za-z](?![A-Za-z])"  # the letters of choices and of unknowns
    rf"|[{_CHINESE_NUMERALS}]+"
    r"|[^\s\u4e00-\u9fff]*\d[^\s\u4e00-\u9fff]*"  # numbers with their signs and units
    r"|(?i:\b(?:not?|nor|cannot|never|neither|nobody|none|nothing|nowhere|without"
    r"|zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve"
    r"|[a-z]+teen|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundred|thousand|million|half|twice"
    r"|double|triple|dozen|third|quarter|more|fewer|less|than)\b)|n['’]t\b|不|没|未|非|多|少|倍"  # noqa: RUF001
)


def around_held(text: str, change: Callable[[str], str]) -> str:
    """The text with a change of each stretch between numbers, formulas, choices and negations, which stay.

    Args:
        text: any text.
        change: what becomes of a stretch.
    """
    pieces, place = [], 0
    for held in _HELD.finditer(text):
        pieces += [change(text[place : held.start()]), held[0]]
        place = held.end()
    return "".join([*pieces, change(text[place:])])
