"""Do the terms of a stage pull the same way?"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import mean

from pydantic import Field

from limbeck.core.parts import part
from limbeck.doctor._base import AfterCheck, Finding
from limbeck.doctor.run import Run, StageLog


@part
class FightingTerms(AfterCheck):
    """Terms whose gradients point against each other: the mean cosine of each pair.

    Reference:
        Yu et al., Gradient Surgery for Multi-Task Learning, 2020, arXiv:2001.06782.
    """

    against: float = Field(default=-0.2, ge=-1, lt=0)
    """A mean cosine below is a fight."""

    def look(self, run: Run) -> Iterator[Finding]:
        for stage in run.stages:
            if len(stage.terms) > 1:
                yield from self._stage(stage)

    def _stage(self, stage: StageLog) -> Iterator[Finding]:
        pairs: dict[tuple[str, str], list[float]] = {}
        for row in stage.steps:
            for one, other, cosine in row.get("gradients", {}).get("cosines", []):
                pairs.setdefault((one, other), []).append(cosine)
        if not pairs:
            reason = f"stage {stage.name}: whether its terms fight was not measured"
            yield self.found("note", reason, change="training.gradient_cosine_steps=20, before the next training")
            return
        means = {pair: mean(values) for pair, values in pairs.items()}
        told = [f"{' and '.join(p)}: cosine {c:+.2f} over {len(pairs[p])} steps" for p, c in means.items()]
        bad = [pair for pair, cosine in means.items() if cosine < self.against]
        if not bad:
            yield self.ok(f"stage {stage.name}: no terms fight", "; ".join(told))
        for pair in bad:
            evidence = next(text for text in told if text.startswith(" and ".join(pair)))
            change = (
                f"a stage for each, one after the other; or stages.{stage.name}.terms.{pair[1]}.weight less, or a "
                "schedule for it"
            )
            yield self.found("warning", f"stage {stage.name}: {pair[0]} and {pair[1]} fight", evidence, change)
