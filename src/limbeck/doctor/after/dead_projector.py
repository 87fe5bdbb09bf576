"""Do terms on layers teach anything?"""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from limbeck.core.parts import part
from limbeck.doctor._base import AfterCheck, Finding
from limbeck.doctor.figures import FEWEST, ends
from limbeck.doctor.run import Run, StageLog


@part
class DeadProjector(AfterCheck):
    """A term on layers that gives the student no gradient, or whose value does not move in a whole stage."""

    flat: float = Field(default=0.01, gt=0, lt=1)
    """A value that changes by no more than this share of itself has not moved."""
    nothing: float = Field(default=1e-8, gt=0)
    """A gradient's norm below is none."""

    def look(self, run: Run) -> Iterator[Finding]:
        for stage in run.stages:
            read = {r["term"]: r for r in run.layers if r["stage"] == stage.name and r["teacher"]}
            for name, layer in read.items():
                yield from self._term(stage, name, f"{layer['student']} <- {layer['teacher']}, {layer['between']}")

    def _term(self, stage: StageLog, name: str, where: str) -> Iterator[Finding]:
        norms = [r["gradients"]["norms"][name] for r in stage.steps if name in r.get("gradients", {}).get("norms", {})]
        values = stage.values(name)
        change = (
            f"stages.{stage.name}.terms.{name}.weight more, `projector: linear`, or other layers: `match` "
            "(`limbeck layers MODEL` lists them)"
        )
        if norms and max(norms) < self.nothing:
            evidence = f"gradient norm {max(norms):.1g} at most, in {len(norms)} steps; {where}"
            yield self.found("error", f"stage {stage.name}: {name} gives the student no gradient", evidence, change)
        elif len(values) >= FEWEST:
            first, last = values[0], ends(values, 0.25)[1]
            told = f"{first:.4g} at first, {last:.4g} in the end; {where}"
            if abs(last - first) <= self.flat * abs(first):
                yield self.found("warning", f"stage {stage.name}: {name} has not moved", told, change)
            else:
                yield self.ok(f"stage {stage.name}: {name} moves", told)
