"""Reasoning traces as answers to learn: one form for all of them, and how long they are.

The form of a target is `<think>`, the thought, `</think>`, an empty line, the answer; `_templates` makes of it what a
tokenizer's chat template wants.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from limbeck.core.errors import DataError
from limbeck.data.thinking import fold, split_thought
from limbeck.tasks._text import text_of

PARTS = ("prompt", "reasoning", "answer")
PERCENTILES = (50, 90, 99)


def refold(text: str) -> str:
    """The same text, with its thought, if it has one, in the form of a target; one that never ends stays as it is."""
    said = split_thought(text)
    if not said.closed:
        return text
    return said.content if said.reasoning_content is None else fold(said.reasoning_content, said.content)


def conversation(turns: Any, where: str) -> tuple[list[dict[str, str]], str]:
    """The turns before the last one, and the last one as a target.

    The last turn's thought is in its field `reasoning_content` or `reasoning`, or within its text. Thoughts of earlier
    assistant's turns are left out, as reasoning models' own templates do.

    Args:
        turns: {role, content} each, the last one the assistant's.
        where: names the row in messages.

    Raises:
        DataError: they are no such conversation.
    """
    if not isinstance(turns, list | tuple) or len(turns) < 2:
        raise DataError(f"{where}: a conversation needs at least two turns", got=repr(turns)[:80])
    for turn in turns:
        if not isinstance(turn, Mapping) or not {"role", "content"} <= turn.keys():
            raise DataError(f"{where}: a turn is not {{role, content}}", got=repr(turn)[:80])
        text_of(turn["content"], "content of a turn", where)
    *earlier, last = turns
    if last["role"] != "assistant":
        raise DataError(f"{where}: the last turn is not the assistant's", got=last["role"])
    before = [{"role": str(t["role"]), "content": _spoken(t)} for t in earlier]
    return before, _target(last, where)


def _spoken(turn: Mapping[str, Any]) -> str:
    text: str = turn["content"]
    said = split_thought(text) if turn["role"] == "assistant" else None
    return said.content if said is not None and said.reasoning_content is not None and said.closed else text


def _target(turn: Mapping[str, Any], where: str) -> str:
    thoughts = {name: turn[name] for name in ("reasoning_content", "reasoning") if turn.get(name) is not None}
    if strange := [name for name, value in thoughts.items() if not isinstance(value, str)]:
        raise DataError(f"{where}: `{strange[0]}` is not text", got=repr(thoughts[strange[0]])[:80])
    found = {value.strip() for value in thoughts.values() if value.strip()}
    said = split_thought(turn["content"])
    if said.reasoning_content is not None:
        found.add(said.reasoning_content)
    if len(found) > 1:
        raise DataError(
            f"{where}: the last turn has two different thoughts",
            got=", ".join(repr(each[:40]) for each in sorted(found)),
            fix="one of reasoning_content, reasoning, or <think> in the content",
        )
    if not found or said.reasoning_content is not None:
        return refold(turn["content"])
    return fold(found.pop(), turn["content"].strip())


class Lengths:
    """How many tokens prompts, thoughts and answers have, of all rows and of those that are learned."""

    def __init__(self) -> None:
        self._rows: list[tuple[int, int, int]] = []
        self._kept: list[tuple[int, int, int]] = []

    def seen(self, prompt: int, reasoning: int, answer: int) -> None:
        """A row as it came."""
        self._rows.append((prompt, reasoning, answer))

    def kept(self, total: int) -> None:
        """The last row is learned, all or the first `total` tokens of it."""
        prompt, reasoning, answer = self._rows[-1]
        reasoning = min(reasoning, total - prompt)
        self._kept.append((prompt, reasoning, min(answer, total - prompt - reasoning)))

    def facts(self) -> dict[str, Any]:
        """Mean, percentiles and most tokens of each part, before and after cutting and dropping, for a manifest."""
        return {"before": _figures(self._rows), "after": _figures(self._kept)}


def _figures(rows: Sequence[tuple[int, int, int]]) -> dict[str, Any]:
    if not rows:
        return {"rows": 0}
    table = np.array(rows)
    found: dict[str, Any] = {"rows": len(rows), "rows_with_reasoning": int((table[:, 1] > 0).sum())}
    for name, column in zip(PARTS, table.T, strict=True):
        given = column[column > 0] if name == "reasoning" else column
        if len(given):
            points = {f"p{p}": round(float(np.percentile(given, p))) for p in PERCENTILES}
            found[name] = {"mean": round(float(given.mean()), 1), **points, "max": int(given.max())}
    return found


def length_rows(facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """`Lengths.facts` as the rows of a small table: part, rows, mean, percentiles, max, before and after."""
    made = []
    for name in PARTS:
        for when in ("before", "after"):
            figures = facts[when]
            if name in figures:
                count = figures["rows_with_reasoning"] if name == "reasoning" else figures["rows"]
                made.append({"tokens of": name, "": when, "rows": count, **figures[name]})
    return made
