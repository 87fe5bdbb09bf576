"""Thought and answer apart: what stands between `<think>` and `</think>`, and what follows."""

from __future__ import annotations

from typing import NamedTuple

OPEN, CLOSE = "<think>", "</think>"


class Thought(NamedTuple):
    """A text in its two halves.

    Attributes:
        content: the answer; empty where the text ends before the thought does.
        reasoning_content: the thought without its tags, None where there is none.
        closed: False where a thought began and never ended, so that there is no answer.
    """

    content: str
    reasoning_content: str | None
    closed: bool


def fold(thought: str, answer: str) -> str:
    """Thought and answer as one text, the form of every target."""
    return f"{OPEN}\n{thought}\n{CLOSE}\n\n{answer}"


def split_thought(text: str) -> Thought:
    """Take a text apart at its think tags.

    A text may begin with the closing tag's half only: templates that open the thought themselves leave `<think>` out
    of what the model writes. A tag that is merely spoken of, further down, is left where it is.

    Args:
        text: what a model wrote.

    Returns:
        The halves, without the white space at the tags; a text without a thought as it was.
    """
    begun = text.lstrip()
    opened = begun.startswith(OPEN)
    inner = begun[len(OPEN) :] if opened else text
    thought, close, answer = inner.partition(CLOSE)
    if close and (opened or OPEN not in thought):
        return Thought(answer.strip(), thought.strip() or None, True)
    if opened:
        return Thought("", inner.strip() or None, False)
    return Thought(text, None, True)
