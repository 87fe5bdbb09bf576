"""Answers that are the reference, word for word."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any

from limbeck.core.errors import DataError
from limbeck.core.parts import part
from limbeck.verification.answers import cleaned, marked, without_thought
from limbeck.verification.types import Candidate, Verdict, Verifier, reference_of


@part
class Exact(Verifier):
    """The answer is the reference. The reference is a text, or a list of texts that are all right.

    An answer that marks its end result (`#### x`, `\\boxed{x}`, `<answer>x</answer>`) is compared by that alone.

    Reasons: `right`, `wrong`, `no_answer`.
    """

    fold: bool = True
    """Case, width of letters, white space, and punctuation at both ends do not count."""
    whole: bool = False
    """The whole answer is compared, even if it marks an end result."""

    def verify(self, candidates: Sequence[Candidate]) -> list[Verdict]:
        verdicts = []
        for each in candidates:
            right, found = self._references(each), self.final(each)
            if found is None:
                verdicts.append(Verdict(False, "no_answer"))
            else:
                verdicts.append(Verdict(found in right, "right" if found in right else "wrong", found))
        return verdicts

    def final(self, candidate: Candidate) -> str | None:
        rest = without_thought(candidate.content)
        if rest is None or not rest.strip():
            return None
        ends = [] if self.whole else list(marked(rest, ("tag", "boxed", "hashes")))
        return self._folded(ends[-1].text if ends else rest)

    def _folded(self, text: str) -> str:
        if not self.fold:
            return text.strip()
        folded = " ".join(cleaned(unicodedata.normalize("NFKC", text)).casefold().split())
        return folded or text.strip()  # of signs alone nothing would be left

    def _references(self, candidate: Candidate) -> set[str]:
        value: Any = reference_of(candidate, self.type())
        values = list(value) if isinstance(value, list | tuple) else [value]
        if not values or any(isinstance(v, bool) or not isinstance(v, str | int | float) for v in values):
            raise DataError(
                f"the reference of prompt {candidate.prompt} is no text",
                got=repr(value)[:200],
                allowed="a text, a number, or a list of them",
            )
        return {self._folded(str(v)) for v in values}
