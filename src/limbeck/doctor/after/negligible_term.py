"""Is every term felt?"""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from limbeck.core.parts import build, part
from limbeck.core.schedules import Schedule
from limbeck.doctor._base import AfterCheck, Finding
from limbeck.doctor.figures import FEWEST
from limbeck.doctor.run import Run, StageLog


@part
class NegligibleTerm(AfterCheck):
    """A term whose weighted share of the loss is next to nothing throughout its stage.

    A stage with `balance` makes its terms equal in size itself, and is left out.
    """

    least: float = Field(default=0.01, gt=0, lt=1)
    """The share of the loss that a term must have in one step of twenty at least."""

    def look(self, run: Run) -> Iterator[Finding]:
        for stage in run.stages:
            if len(stage.terms) > 1 and stage.spec.get("balance") is None and len(stage.steps) >= FEWEST:
                yield from self._stage(stage)

    def _stage(self, stage: StageLog) -> Iterator[Finding]:
        shares = _shares(stage)
        high = {name: sorted(values)[int(0.95 * (len(values) - 1))] for name, values in shares.items() if values}
        told = ", ".join(f"{name} {share:.2%}" for name, share in high.items())
        weak = [name for name, share in high.items() if share < self.least]
        for name in weak:
            typical = sorted(stage.values(name))[len(shares[name]) // 2]
            evidence = f"highest shares of the loss: {told}; {name} is {typical:.3g} before its weight"
            change = f"stages.{stage.name}.terms.{name}.weight more, `balance`, or leave the term out"
            yield self.found("warning", f"stage {stage.name}: {name} is negligible", evidence, change)
        if not weak:
            yield self.ok(f"stage {stage.name}: every term is felt", f"highest shares of the loss: {told}")


def _shares(stage: StageLog) -> dict[str, list[float]]:
    """By term, its weighted share of the loss at every step that has it."""
    weights = {name: build("schedule", term["weight"]) for name, term in stage.terms.items()}
    stalls = [row["step"] for row in stage.evals if not row["best"]]
    shares: dict[str, list[float]] = {name: [] for name in weights}
    for i, row in enumerate(stage.steps):
        done, seen = i / max(1, len(stage.steps) - 1), sum(step < row["step"] for step in stalls)
        parts = {}
        for name, weight in weights.items():
            assert isinstance(weight, Schedule)
            if name in row["terms"]:
                parts[name] = abs(weight.after(done, seen) * row["terms"][name])
        total = sum(parts.values())
        for name, value in parts.items():
            shares[name].append(value / total if total else 0.0)
    return shares
