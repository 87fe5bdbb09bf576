"""Worked answers whose every equation is true."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from limbeck.core.parts import part
from limbeck.data.steps import steps_of
from limbeck.verification.arithmetic import equations
from limbeck.verification.types import Candidate, Verdict, Verifier


@part
class StepEquations(Verifier):
    """Every equation in every step of the answer is true, worked out exactly: `64+5=69`, `\\frac{3}{4} = 0.75`.

    An answer can be right and its way wrong; this finds the steps that do not add up. Equations with letters or units
    between the numbers are not judged. No reference is needed.

    Reasons: `right`, `wrong_equation` (found: which step, and the equation), `too_few_equations`.

    Reference:
        Cobbe et al., Training Verifiers to Solve Math Word Problems, 2021, arXiv:2110.14168.
    """

    thought: bool = False
    """The thought is checked too. Thoughts try things out and correct themselves: many hold a wrong equation."""
    rounded: bool = True
    """A result with decimal places may be rounded to these: 10/3 = 3.33."""
    least: int = Field(default=0, ge=0)
    """Fewer equations than these are not enough."""

    def verify(self, candidates: Sequence[Candidate]) -> list[Verdict]:
        return [self._verdict(each) for each in candidates]

    def _verdict(self, candidate: Candidate) -> Verdict:
        count = 0
        for place, step in enumerate(steps_of(candidate.text if self.thought else candidate.content), start=1):
            for equation in equations(step.text):
                count += 1
                if not equation.holds(self.rounded):
                    return Verdict(False, "wrong_equation", f"step {place}: {equation.text}")
        return Verdict(True, "right") if count >= self.least else Verdict(False, "too_few_equations", str(count))
