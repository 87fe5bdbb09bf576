"""Do answers come to an end?"""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from limbeck.core.parts import part
from limbeck.doctor._base import AfterCheck, Finding
from limbeck.doctor.figures import FEWEST, ends
from limbeck.doctor.run import Run, StageLog


@part
class LengthExplosion(AfterCheck):
    """Answers that grow and no longer end: those that the student wrote in on-policy stages, and the final ones."""

    grown: float = Field(default=1.5, gt=1)
    """How many times the first texts' mean length the last ones' is."""
    cut: float = Field(default=0.2, gt=0, lt=1)
    """How much smaller the share of answers with an end is than it was, or than the teacher's is."""

    def look(self, run: Run) -> Iterator[Finding]:
        for stage in run.stages:
            yield from self._written(stage)
        mine, its = (run.find(model, "unfinished_answers") for model in ("student", "teacher"))
        if mine is None:
            return
        less = 0.0 if its is None else its["value"]
        most = run.recipe.get("evaluate", {}).get("max_new_tokens")
        told = f"{mine['value']:.0%} of the answers ran into the limit of {most} tokens"
        told += "" if its is None else f", the teacher's {less:.0%}"
        if mine["value"] - less > self.cut:
            change = (
                "cross_entropy on answers with their end token; task.too_long=drop; a larger evaluate.max_new_tokens"
            )
            yield self.found("warning", "the student's answers do not end", told, change)
        else:
            yield self.ok("answers come to an end", told)

    def _written(self, stage: StageLog) -> Iterator[Finding]:
        own = [row["on_policy"] for row in stage.steps if "on_policy" in row]
        if len(own) < FEWEST:
            return
        length, ended = (ends([row[name] for row in own], 0.2) for name in ("mean_length", "finished"))
        told = f"mean length {length[0]:.0f} to {length[1]:.0f} tokens; {ended[0]:.0%} to {ended[1]:.0%} came to an end"
        if length[1] > self.grown * length[0] and ended[1] < ended[0] - self.cut:
            change = (
                f"stages.{stage.name}.on_policy.share less and a term with labels (cross_entropy) in the other steps; "
                f"a smaller learning_rate; on_policy.temperature lower"
            )
            yield self.found("error", f"stage {stage.name}: the student's own texts explode in length", told, change)
        else:
            yield self.ok(f"stage {stage.name}: the student's own texts keep their length", told)
