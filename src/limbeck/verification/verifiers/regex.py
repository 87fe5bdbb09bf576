"""Answers that a pattern finds."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pydantic import Field, field_validator

from limbeck.core.errors import DataError, RecipeError
from limbeck.core.parts import part
from limbeck.verification.answers import without_thought
from limbeck.verification.types import Candidate, Verdict, Verifier, reference_of
from limbeck.verification.workers import Result, workers


@part
class Regex(Verifier):
    """The answer matches a regular expression.

    A pattern with a group reads the final answer, which has to be the reference: `Answer: (\\w+)`; the last match
    counts. A pattern without one only has to match somewhere, and a reference is not looked at. Without a pattern, the
    reference is the pattern.

    Patterns run in a process that is killed after `timeout`, since some never end on some texts.

    Reasons: `right`, `wrong`, `no_answer` (no match), `timeout`.
    """

    pattern: str | None = None
    """In Python's syntax."""
    timeout: float = Field(default=2.0, gt=0)
    """Seconds that one search may take."""

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except re.error as error:
            raise ValueError(f"no regular expression: {error}") from error
        return value

    def verify(self, candidates: Sequence[Candidate]) -> list[Verdict]:
        rows = [(self._pattern(each), str(each.reference).strip()) for each in candidates]
        results = self._search(candidates, [pattern for pattern, _ in rows])
        return [self._verdict(r, p, right) for r, (p, right) in zip(results, rows, strict=True)]

    def final(self, candidate: Candidate) -> str | None:
        if self.pattern is None or not re.compile(self.pattern).groups:
            raise RecipeError("a vote needs a pattern with a group, which reads the final answer", got=self.pattern)
        found = self._search([candidate], [self.pattern])[0].value
        return None if found is None or found["group"] is None else str(found["group"]).strip()

    def _pattern(self, candidate: Candidate) -> str:
        if self.pattern is not None:
            if re.compile(self.pattern).groups:
                reference_of(candidate, self.type())
            return self.pattern
        value = reference_of(candidate, self.type())
        try:
            re.compile(value)
        except (re.error, TypeError) as error:
            what = f"the reference of prompt {candidate.prompt} is no regular expression"
            raise DataError(what, got=f"{value!r}: {error}"[:300]) from error
        return str(value)

    def _search(self, candidates: Sequence[Candidate], patterns: Sequence[str]) -> list[Result]:
        texts = [without_thought(each.content) or "" for each in candidates]
        tasks = [{"pattern": p, "text": t} for p, t in zip(patterns, texts, strict=True)]
        return workers("regex", 1).map(tasks, self.timeout)

    def _verdict(self, result: Result, pattern: str, right: str) -> Verdict:
        if result.failure is not None:
            return Verdict(False, "timeout" if result.failure == "timeout" else "no_answer", result.detail or None)
        if result.value is None:
            return Verdict(False, "no_answer")
        if self.pattern is None or not re.compile(pattern).groups:
            return Verdict(True, "right", result.value["text"])
        found = (result.value["group"] or "").strip()
        return Verdict(found == right, "right" if found == right else "wrong", found)
