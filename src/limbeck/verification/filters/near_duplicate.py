"""Answers or questions that say nearly the same as an earlier one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar, Literal

from pydantic import Field

from limbeck.core.parts import part
from limbeck.verification.grams import Likes, grams, signature, units
from limbeck.verification.types import Candidate, Filter


@part
class NearDuplicate(Filter):
    """Drops what is nearly the same as something earlier, by MinHash over runs of words.

    Of `answers`: an answer that nearly repeats another one to the same prompt. Of `questions`: a prompt whose question
    nearly repeats an earlier prompt's, with all its answers. Likeness is Jaccard's index of the runs of words,
    estimated by 128 hashes (standard error 0.04 at most); memory grows by about a kilobyte for each text that stays.

    Reasons: `near_duplicate` (answers), `near_duplicate_question`.

    Reference:
        Lee et al., Deduplicating Training Data Makes Language Models Better, 2021, arXiv:2107.06499.
    """

    compares: ClassVar[bool] = True

    of: Literal["answers", "questions"] = "answers"
    """What is compared."""
    threshold: float = Field(default=0.8, gt=0, le=1)
    """Likeness from which two texts are nearly the same; 1 is equal but for case and spaces."""
    n: int = Field(default=3, ge=1)
    """Words in a run."""

    def judge(self, candidates: Iterable[Candidate]) -> Iterator[tuple[Candidate, str | None]]:
        known: dict[str, Likes] = {}
        new: dict[str, bool] = {}
        for each in candidates:
            if self.of == "answers":
                seen = known.setdefault(each.prompt, Likes(self.threshold))
                yield each, None if self._add(seen, each.text) else "near_duplicate"
                continue
            if each.prompt not in new:
                new[each.prompt] = self._add(known.setdefault("", Likes(self.threshold)), each.question)
            yield each, None if new[each.prompt] else "near_duplicate_question"

    def _add(self, seen: Likes, text: str) -> bool:
        found = grams(units(text), self.n)
        return seen.add(signature(found or {0}))
