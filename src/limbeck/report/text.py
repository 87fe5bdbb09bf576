"""Text from elsewhere, made safe to show: what steers a terminal, a parser or the direction of reading is seen."""

from __future__ import annotations

import re

_STEERING = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


def readable(text: str) -> str:
    """The text with a sign in place of control characters, overrides of direction and halves of characters."""
    return _STEERING.sub("\ufffd", text.replace("\r\n", "\n").replace("\r", "\n"))


def shortened(text: str, limit: int) -> tuple[str, int]:
    """At most `limit` characters of a text, and how many were left out."""
    return text[:limit], max(0, len(text) - limit)


def squeezed(text: str, limit: int) -> str:
    """Beginning and end of a text that is longer than `limit` characters."""
    return text if len(text) <= limit else f"{text[: limit // 2]}…{text[len(text) - (limit - 1) // 2 :]}"
