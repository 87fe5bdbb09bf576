"""Did the optimization hold: finite, bounded, and downhill?"""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import median

from pydantic import Field

from limbeck.core.parts import part
from limbeck.doctor._base import AfterCheck, Finding
from limbeck.doctor.figures import FEWEST, ends
from limbeck.doctor.run import Run, StageLog

_COOL = "stages.{0}.learning_rate={1:.0e}, stages.{0}.warmup_ratio=0.1, stages.{0}.max_grad_norm=1"


@part
class Gradients(AfterCheck):
    """Gradients that are not finite or explode, and a loss that rises, or does not fall."""

    burst: float = Field(default=100.0, gt=1)
    """A norm this many times a stage's median, and this many times the bound, is an explosion."""
    risen: float = Field(default=1.5, gt=1)
    """A loss that ends this many times above where it began has diverged."""
    fallen: float = Field(default=0.05, gt=0, lt=1)
    """By this share of itself at least, the loss of the first stage must have fallen."""

    def look(self, run: Run) -> Iterator[Finding]:
        for place, stage in enumerate(run.stages):
            seen = [*self._not_finite(stage), *self._burst(stage), *self._risen(stage, place == 0)]
            yield from seen
            if not seen:
                norms = [row["grad_norm"] for row in stage.steps]
                told = f"gradient norm {median(norms):.3g}, at most {max(norms):.3g}; {_way(stage)}"
                yield self.ok(f"stage {stage.name}: gradients stay bounded", told)
        if run.is_behind:
            reason = "a later training was begun and did not come to its end; this is about the one before"
            yield self.found("note", reason, change="`limbeck run` goes on; if it stopped with an error, see that")
        if run.steps and not run.is_trained:
            yield self.found(
                "note",
                "the training did not come to its end",
                f"the log ends at step {run.steps[-1]['step']}",
                "the same `limbeck run` goes on; if it stopped with an error, see that",
            )

    def _not_finite(self, stage: StageLog) -> Iterator[Finding]:
        bad = [r for r in stage.steps if not (math.isfinite(r["loss"]) and math.isfinite(r["grad_norm"]))]
        lost = [row for row in bad if not row.get("skipped")]
        if lost:
            row = lost[0]
            reason = f"stage {stage.name}: loss or gradient is not finite"
            evidence = f"step {row['step']}: loss {row['loss']:.4g}, gradient norm {row['grad_norm']:.4g}"
            yield self.found("error", reason, evidence, f"{_cool(stage)}, or training.precision=fp32")
        elif len(bad) > 0.1 * len(stage.steps):
            reason = f"stage {stage.name}: the loss scaler left many steps out, since gradients overflowed in fp16"
            evidence = f"{len(bad)} of {len(stage.steps)} steps"
            yield self.found("warning", reason, evidence, "training.precision=bf16")

    def _burst(self, stage: StageLog) -> Iterator[Finding]:
        norms = [row["grad_norm"] for row in stage.steps if math.isfinite(row["grad_norm"])]
        if not norms:
            return
        middle, bound = median(norms), stage.spec.get("max_grad_norm", 1.0)
        high = [r for r in stage.steps if math.isfinite(r["grad_norm"]) and r["grad_norm"] > self.burst * bound]
        bursts = [row for row in high if row["grad_norm"] > self.burst * middle]
        if bursts or middle > self.burst * bound:
            row = max(high, key=lambda row: row["grad_norm"])
            evidence = (
                f"norm {row['grad_norm']:.3g} at step {row['step']}; median {middle:.3g}, clipped at {bound:g}; "
                f"{len(high)} of {len(stage.steps)} steps above {self.burst * bound:g}"
            )
            yield self.found("warning", f"stage {stage.name}: gradients explode", evidence, _cool(stage))

    def _risen(self, stage: StageLog, is_first: bool) -> Iterator[Finding]:
        losses = _fixed_loss(stage)
        if len(losses) < FEWEST:
            return
        first, last = losses[0], ends(losses)[1]
        evidence = f"{first:.3g} at its first step, {last:.3g} over its last tenth"
        if first > 0 and last > self.risen * first:
            yield self.found("error", f"stage {stage.name}: the loss has diverged", evidence, _cool(stage))
        elif is_first and first > 0 and last > (1 - self.fallen) * first:
            change = f"{_cool(stage)}; ten times more instead, if the loss has not moved at all; more epochs"
            yield self.found("warning", f"stage {stage.name}: the loss has not fallen", evidence, change)


def _fixed_loss(stage: StageLog) -> list[float]:
    """The sum of the terms, unweighted: weights may rise over a stage, and the loss with them."""
    every = [row["terms"] for row in stage.steps]
    names = set.intersection(*(set(terms) for terms in every)) if every else set()
    return [sum(terms[name] for name in names) for terms in every]


def _way(stage: StageLog) -> str:
    first, last = ends([row["loss"] for row in stage.steps])
    return f"loss {first:.3g} to {last:.3g}"


def _cool(stage: StageLog) -> str:
    return _COOL.format(stage.name, stage.spec.get("learning_rate", 1e-3) / 10)
