"""Final answers that are numbers or formulas."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

from pydantic import Field

from limbeck.core.errors import DataError, MissingExtra
from limbeck.core.parts import part
from limbeck.verification.answers import FORMS, Form, Number, cleaned, final_value, number_of
from limbeck.verification.types import Candidate, Verdict, Verifier, reference_of
from limbeck.verification.workers import Result, workers


@part
class MathAnswer(Verifier):
    """The final answer equals the reference, as a number or as a formula.

    Plain numbers are compared exactly: `1,000`, `$1000.00` and `1000 dollars` are the same, `50%` is both 50 and 0.5.
    Everything else, `\\frac{1}{2}` or `x^2 + 1`, goes to math-verify, in a process that is killed after `timeout`.
    The reference is a number, or a text: the answer itself, or a solution that marks it (`#### 94`).

    Reasons: `right`, `wrong`, `no_answer`, `unreadable`, `timeout`.
    """

    forms: tuple[Form, ...] = Field(default=FORMS, min_length=1)
    """How an answer may be given; `plain` is the last number of the last line, where nothing is marked."""
    tolerance: float = Field(default=0.0, ge=0, lt=1)
    """Relative difference up to which two plain numbers are equal."""
    timeout: float = Field(default=5.0, gt=0)
    """Seconds that one comparison of formulas may take."""
    workers: int = Field(default=1, ge=1)
    """Processes that compare formulas."""

    def verify(self, candidates: Sequence[Candidate]) -> list[Verdict]:
        verdicts: list[Verdict | None] = []
        hard: list[tuple[int, str, str]] = []
        for i, each in enumerate(candidates):
            right = self._reference(each)
            found = final_value(each.content, self.forms, cut_off=each.cut_off)
            if found is None:
                verdicts.append(Verdict(False, "no_answer"))
                continue
            text = cleaned(found.text)
            one, other = number_of(right), number_of(text)
            if one is not None and other is not None:
                verdicts.append(_verdict(one.equals(other, self.tolerance), text))
            elif cleaned(right) == text:
                verdicts.append(Verdict(True, "right", text))
            else:
                verdicts.append(None)
                hard.append((i, cleaned(right), text))
        for (i, right, text), result in zip(hard, self._compare(hard), strict=True):
            verdicts[i] = _read(result, right, text)
        return [verdict for verdict in verdicts if verdict is not None]

    def final(self, candidate: Candidate) -> str | None:
        found = final_value(candidate.content, self.forms, cut_off=candidate.cut_off)
        if found is None:
            return None
        number = number_of(found.text)
        return cleaned(found.text).replace(" ", "") if number is None else _written(number)

    def _reference(self, candidate: Candidate) -> str:
        value: Any = reference_of(candidate, self.type())
        if isinstance(value, str) and value.strip():
            if number_of(value) is not None:
                return value
            found = final_value(value, ("tag", "boxed", "hashes", "stated"))
            return value if found is None else found.text
        if isinstance(value, int | float) and not isinstance(value, bool):
            return repr(value)
        raise DataError(
            f"the reference of prompt {candidate.prompt} is no mathematical answer",
            got=repr(value)[:200],
            allowed="a number, or a text",
        )

    def _compare(self, hard: Sequence[tuple[int, str, str]]) -> list[Result]:
        if not hard:
            return []
        if importlib.util.find_spec("math_verify") is None:
            raise MissingExtra("comparing formulas (verifier 'math_answer')", "generate")
        tasks = [{"reference": right, "found": text} for _, right, text in hard]
        return workers("math", self.workers).map(tasks, self.timeout)


def _written(number: Number) -> str:
    value = number.value
    return f"{value.numerator}/{value.denominator}{'%' if number.is_share else ''}".replace("/1%", "%").removesuffix(
        "/1"
    )


def _verdict(ok: bool, text: str) -> Verdict:
    return Verdict(ok, "right" if ok else "wrong", text)


def _read(result: Result, right: str, text: str) -> Verdict:
    if result.failure == "timeout":
        return Verdict(False, "timeout", text)
    if result.failure is not None:
        return Verdict(False, "unreadable", text)
    if result.value == "no_reference":
        raise DataError("a reference cannot be read as mathematics", got=right[:200], fix="correct it, or use `exact`")
    return Verdict(result.value == "right", result.value, text)
