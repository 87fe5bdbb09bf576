"""Where two tokenizers cut a text at the same places: what lies between is the same text to both.

The cat sat
The| cat| s|at      one tokenizer
Th|e| cat| sat      the other      ->  stretches "The", " cat", " sat"
"""

from __future__ import annotations

from collections.abc import Sequence

Offsets = Sequence[tuple[int, int]]
"""First and last character (exclusive) of every token."""


def common_spans(one: Offsets, other: Offsets, longest: int = 8) -> tuple[list[int], list[int]]:
    """For every token of both tokenizers, the number of the stretch of text it belongs to; -1: none.

    A stretch ends where both tokenizers end a token. Bytes of one character never end one. Stretches with more than
    `longest` tokens of either are left out: their likelihoods say little of any single token.

    Args:
        one: the tokens of a text.
        other: the tokens of the same text by another tokenizer.
        longest: tokens in a stretch.
    """
    # What stands before the text's first character (a template's newline) belongs to no stretch.
    mine, theirs = ({0: sum(end <= 0 for _, end in each)} | _ends(each) for each in (one, other))
    spans: tuple[list[int], list[int]] = ([-1] * len(one), [-1] * len(other))
    first, second, number = 0, 0, 0
    for place in sorted(mine.keys() & theirs.keys()):
        last, until = mine[place], theirs[place]
        if 0 < last - first <= longest and 0 < until - second <= longest:
            spans[0][first:last] = [number] * (last - first)
            spans[1][second:until] = [number] * (until - second)
            number += 1
        first, second = last, until
    return spans


def _ends(offsets: Offsets) -> dict[int, int]:
    """By character at which a token ends, the number of tokens until there; not inside of a character."""
    ends: dict[int, int] = {}
    for i, (_, end) in enumerate(offsets):
        if i + 1 == len(offsets) or offsets[i + 1][0] >= end:
            ends[end] = i + 1
    return ends


def coverage(spans: Sequence[Sequence[int]]) -> float:
    """Share of all tokens that belong to a stretch."""
    count = sum(len(row) for row in spans)
    return sum(number >= 0 for row in spans for number in row) / count if count else 0.0
