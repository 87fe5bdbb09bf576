"""Did the student learn its teacher's noise by heart?"""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from limbeck.core.parts import find, part
from limbeck.doctor._base import AfterCheck, Finding
from limbeck.doctor.figures import ends
from limbeck.doctor.run import Run, StageLog


@part
class Overfitting(AfterCheck):
    """The terms fall while the validation gets worse, or the teacher's errors are learned with the rest.

    The best weights are kept, so that this costs time, and leaves the student where it was before.
    """

    risen: float = Field(default=1.1, gt=1)
    """How many times its least the validation loss must be in the end."""
    fallen: float = Field(default=0.02, gt=0, lt=1)
    """Where accuracy is measured, it must have fallen by this too: a loss alone rises where a student gets sure."""
    inherited: float = Field(default=0.03, gt=0, lt=1)
    """More rows with the teacher's own wrong answer than the baseline has, as a share of all."""

    def look(self, run: Run) -> Iterator[Finding]:
        for stage in run.stages:
            if len(stage.evals) >= 3:
                yield from self._stage(stage)
        yield from self._errors(run)

    def _stage(self, stage: StageLog) -> Iterator[Finding]:
        metrics = [row["metrics"] for row in stage.evals]
        losses = [row["loss"] for row in metrics]
        least = losses.index(min(losses))
        worse = losses[-1] > self.risen * losses[least] and losses[-2] > self.risen * losses[least]
        told = f"validation loss {losses[least]:.3g} at step {stage.evals[least]['step']}, {losses[-1]:.3g} in the end"
        if "accuracy" in metrics[0]:
            right = [row["accuracy"] for row in metrics]
            worse = worse and max(right[-2:]) < max(right) - self.fallen
            told += f"; accuracy {max(right):.1%} at its best, {right[-1]:.1%} in the end"
        after = [row for row in stage.steps if row["step"] > stage.evals[least]["step"]]
        falling = [
            name for name in stage.terms if _falls([row["terms"][name] for row in after if name in row["terms"]])
        ]
        if not worse or not falling:
            yield self.ok(f"stage {stage.name}: the validation holds", told)
            return
        taught = [name for name in falling if find("objective", stage.terms[name]["type"]).asks_teacher]  # type: ignore[attr-defined]
        whose = "the teacher's noise" if taught else "its rows"
        change = (
            f"stages.{stage.name}.epochs less, early_stopping_patience=3, or weight_decay more; more rows "
            "(`generate`) or `augment`"
        )
        if taught:
            change += f"; stages.{stage.name}.terms.{taught[0]}.temperature higher, where it has one"
        reason = f"stage {stage.name}: the student learns {whose} by heart"
        yield self.found("warning", reason, f"{told}; meanwhile {', '.join(falling)} fell on", change)

    def _errors(self, run: Run) -> Iterator[Finding]:
        told = run.detail("errors") or {}
        if not {"student", "baseline"} <= told.keys():
            return
        mine, plain = (told[name]["inherited"] / told[name]["n"] for name in ("student", "baseline"))
        if mine - plain > self.inherited:
            evidence = f"the teacher's own wrong answer on {mine:.1%} of the rows, the baseline's on {plain:.1%}"
            change = "more weight on cross_entropy, a `gate`, or a better teacher (teacher.finetune.epochs)"
            yield self.found("warning", "the student has taken over errors of its teacher", evidence, change)


def _falls(values: list[float]) -> bool:
    if len(values) < 2:
        return False
    first, last = ends(values, 0.25)
    return last < 0.95 * first
