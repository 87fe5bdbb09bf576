"""Answers that are the letter of an option."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from limbeck.core.errors import DataError
from limbeck.core.parts import part
from limbeck.verification.answers import FORMS, Form, final_choice
from limbeck.verification.types import Candidate, Verdict, Verifier, reference_of


@part
class MultipleChoice(Verifier):
    """The answer names the right option by its letter: `The answer is (B)`, `\\boxed{B}`, `option B`, `答案是B`, `B`.

    The reference is a letter; or, with `first`, the option's number.

    Reasons: `right`, `wrong`, `no_answer`, `ambiguous` (it names two).
    """

    letters: Annotated[str, StringConstraints(pattern=r"^[A-Z]{2,26}$")] = "ABCDEFGHIJ"
    """The letters that options may have, in order."""
    forms: tuple[Form, ...] = Field(default=FORMS, min_length=1)
    """How an answer may be given; `plain` is `option B`, `B is correct`, or a last line that is a letter."""
    first: int | None = Field(default=None, ge=0, le=1)
    """What references count from if they are numbers: 0 or 1."""

    def verify(self, candidates: Sequence[Candidate]) -> list[Verdict]:
        verdicts = []
        for each in candidates:
            right, found = self._reference(each), self.final(each)
            if found is None:
                verdicts.append(Verdict(False, "no_answer"))
            elif "," in found:
                verdicts.append(Verdict(False, "ambiguous", found))
            else:
                verdicts.append(Verdict(found == right, "right" if found == right else "wrong", found))
        return verdicts

    def final(self, candidate: Candidate) -> str | None:
        return final_choice(candidate.content, self.letters, self.forms, cut_off=candidate.cut_off)

    def _reference(self, candidate: Candidate) -> str:
        value: Any = reference_of(candidate, self.type())
        if isinstance(value, str):
            letter = value.strip().strip("().").upper()
            if len(letter) == 1 and letter in self.letters:
                return letter
        elif self.first is not None and isinstance(value, int) and 0 <= value - self.first < len(self.letters):
            return self.letters[value - self.first]
        raise DataError(
            f"the reference of prompt {candidate.prompt} is no option",
            got=repr(value)[:200],
            allowed=f"one of {', '.join(self.letters)}" + ("" if self.first is None else ", or an option's number"),
            fix="options that are numbered: set `first: 0` or `first: 1`" if isinstance(value, int) else None,
        )
