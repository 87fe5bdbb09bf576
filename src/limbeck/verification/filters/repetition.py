"""Answers that go round in circles."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from pydantic import Field

from limbeck.core.parts import part
from limbeck.verification.grams import units
from limbeck.verification.types import Candidate, Filter

_SEED = 8
"""Words that are looked up to find where a loop may be."""


@part
class Repetition(Filter):
    """Drops answers in which the same words come again and again, without a break: what a model does that is stuck.

    Reason: `repetition`.

    Reference:
        Holtzman et al., The Curious Case of Neural Text Degeneration, 2019, arXiv:1904.09751.
    """

    times: int = Field(default=4, ge=2)
    """How often the words come in a row."""
    words: int = Field(default=60, ge=2)
    """How many words (and signs) the loop has in all, at least: `0, 0, 0, 0` is no loop yet."""
    longest: int = Field(default=200, ge=1)
    """The most words that one round may have and still be found."""

    def judge(self, candidates: Iterable[Candidate]) -> Iterator[tuple[Candidate, str | None]]:
        for each in candidates:
            yield each, "repetition" if self.loops(each.text) else None

    def loops(self, text: str) -> bool:
        """Whether a text holds a loop: for a round of p words, every word of a long run equals the one p before it."""
        found = units(text)
        if len(found) < self.words:
            return False
        known: dict[str, int] = {}
        ids_N = np.fromiter((known.setdefault(unit, len(known)) for unit in found), dtype=np.int64, count=len(found))
        for p in _distances(ids_N, min(_SEED, self.words // 2), self.longest):
            least = max(self.words, p * self.times) - p  # words that equal the one a round before them
            if _longest_run(ids_N[p:] == ids_N[:-p]) >= least:
                return True
        return False


def _distances(ids_N: np.ndarray, n: int, most: int) -> list[int]:
    """How far apart equal runs of n words stand next to each other: only these can be the length of a round."""
    hashes_N = np.zeros(len(ids_N) - n + 1, dtype=np.uint64)
    for i in range(n):
        hashes_N = hashes_N * np.uint64(0x9E3779B97F4A7C15) + ids_N[i : len(ids_N) - n + 1 + i].astype(np.uint64)
    order_N = np.argsort(hashes_N, kind="stable")
    same = hashes_N[order_N][1:] == hashes_N[order_N][:-1]
    apart = np.diff(order_N)[same]
    return [int(p) for p in np.unique(apart[apart <= most])]


def _longest_run(same_N: np.ndarray) -> int:
    """The most True values in a row."""
    breaks = np.flatnonzero(~same_N)
    if not len(breaks):
        return len(same_N)
    return int(np.diff(breaks, prepend=-1, append=len(same_N)).max()) - 1
