"""What checks have in common: they look, and say what they found, how bad it is, and what to change."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from limbeck.core.errors import LimbeckError
from limbeck.core.parts import Part, part
from limbeck.doctor.plan import Plan
from limbeck.doctor.run import Run

Severity = Literal["ok", "note", "warning", "error"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note", "ok")
"""The worst first."""


@dataclass(frozen=True)
class Finding:
    """What a check has found.

    Attributes:
        check: its type.
        severity: `ok`: looked at, and nothing is wrong. `note`: worth knowing. `warning`: the student will suffer, or
            has. `error`: the run will fail, or its student is of no use.
        reason: what is wrong, in a sentence.
        evidence: the figures behind it.
        change: what to change, in words of the recipe; None where nothing is to be changed.
    """

    check: str
    severity: Severity
    reason: str
    evidence: str = ""
    change: str | None = None


@part
class Check(Part, ABC):
    """One thing to look at."""

    order: ClassVar[int] = 2
    """Checks with a smaller number look first: what they cannot read, later ones cannot either."""

    def ok(self, reason: str, evidence: str = "") -> Finding:
        """Nothing is wrong."""
        return Finding(self.type(), "ok", reason, evidence)

    def found(self, severity: Severity, reason: str, evidence: str = "", change: str | None = None) -> Finding:
        """Something is."""
        return Finding(self.type(), severity, reason, evidence, change)

    def refused(self, error: LimbeckError) -> Finding:
        """The run itself would stop, or has stopped, with this error."""
        known = (("", error.got), ("allowed: ", error.allowed))
        evidence = "; ".join(f"{name}{value}" for name, value in known if value is not None)
        return self.found("error", error.what, evidence, error.fix)


@part
class BeforeCheck(Check, ABC):
    """Looks at a recipe before anything is computed."""

    @abstractmethod
    def look(self, plan: Plan) -> Iterator[Finding]:
        """What is found; nothing where the recipe has nothing of the kind.

        Raises:
            LimbeckError: the run would stop with the same error.
        """


@part
class AfterCheck(Check, ABC):
    """Looks at what a run left."""

    @abstractmethod
    def look(self, run: Run) -> Iterator[Finding]:
        """What is found; nothing where the run recorded nothing of the kind."""
