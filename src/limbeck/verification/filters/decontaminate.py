"""Rows that hold a piece of an evaluation set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pydantic import Field

from limbeck.core.errors import RecipeError
from limbeck.core.parts import part
from limbeck.verification.grams import grams, words
from limbeck.verification.types import Candidate, Filter, Held, Sieve


@part
class Decontaminate(Filter):
    """Drops rows of which a turn, thought or answer shares a run of 13 words with an evaluation set.

    Case and signs do not count. The pipeline hands in the questions and answers of the validation and test rows. A
    question of fewer words counts if a whole turn or answer is the same; an answer of fewer words does not count, since
    many rows share those.

    Reason: `contaminated`.

    Reference:
        Brown et al., Language Models are Few-Shot Learners, 2020, arXiv:2005.14165 (appendix C).
    """

    n: int = Field(default=13, ge=2)
    """Words in a run."""
    answers: bool = True
    """Answers of evaluation rows count too, not only their questions. `false` where all answers begin alike."""

    def judge(self, candidates: Iterable[Candidate]) -> Iterator[tuple[Candidate, str | None]]:
        raise RecipeError(
            "the filter 'decontaminate' has no evaluation texts to compare with",
            fix="use it in `generate`, under `filters`, with validation or test rows in `data`",
        )

    def against(self, held: Iterable[Held]) -> Sieve:
        runs: set[int] = set()
        whole: set[int] = set()
        for row in held:
            found = words(row.question)
            (runs if len(found) >= self.n else whole).update(grams(found, self.n))
            answer = words(row.answer) if self.answers else []
            if len(answer) >= self.n:
                runs |= grams(answer, self.n)
        if not runs and not whole:
            raise RecipeError("the filter 'decontaminate' has no evaluation texts to compare with", fix="data.test=...")
        return _Against(self.n, frozenset(runs), frozenset(whole))


@dataclass(frozen=True)
class _Against:
    """The filter with the evaluation sets' runs of words, and their short texts whole."""

    n: int
    runs: frozenset[int]
    whole: frozenset[int]

    def judge(self, candidates: Iterable[Candidate]) -> Iterator[tuple[Candidate, str | None]]:
        known: dict[str, bool] = {}
        for each in candidates:
            if each.prompt not in known:
                turns = [turn["content"] for turn in each.messages if turn["role"] != "system"]
                known[each.prompt] = any(map(self._holds, turns))
            answer = self._holds(each.content) or self._holds(each.reasoning_content or "")
            yield each, "contaminated" if known[each.prompt] or answer else None

    def _holds(self, text: str) -> bool:
        found = words(text)
        return not (self.runs if len(found) >= self.n else self.whole).isdisjoint(grams(found, self.n))
