"""What the student can no longer do, which the teacher can."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import Field

from limbeck.core.parts import part
from limbeck.doctor._base import AfterCheck, Finding, Severity
from limbeck.doctor.run import Run

_MORE = (
    "stages.{0}.epochs more, a larger student, more rows (`generate`), or a first stage on layers (hidden, "
    "attention_maps)"
)


@part
class CapabilityLoss(AfterCheck):
    """The student keeps too little of its teacher, in all or in some classes and slices."""

    least_kept: float = Field(default=0.9, gt=0, le=1)
    """The share of the teacher's score that a student should keep; the interval's upper end must reach it."""
    perplexity: float = Field(default=2.0, gt=1)
    """How many times the teacher's perplexity a student without graded answers may have."""
    least_slice: float = Field(default=0.1, gt=0, lt=1)
    """A slice, or a class's recall, that loses more than this against the teacher is named."""
    few: int = Field(default=10, gt=0)
    """Classes with fewer rows are left out."""

    def look(self, run: Run) -> Iterator[Finding]:
        kept = run.find("student", "kept_of_teacher")
        seen = [*self._whole(run), *self._slices(run), *self._classes(run)]
        yield from seen
        if kept is not None and not seen:
            told = f"{kept['value']:.1%} of the teacher's score on {kept['n']} rows"
            yield self.ok("the student keeps what its teacher can do", told)

    def _whole(self, run: Run) -> Iterator[Finding]:
        for name in ("accuracy", "answer_accuracy"):
            its = run.find("teacher", name)
            if its is not None and its["value"] == 0:
                change = "another teacher, or teacher.finetune; check task.answer_pattern and evaluate.max_new_tokens"
                evidence = f"{name} 0 on {its['n']} rows"
                yield self.found("error", "the teacher itself answers nothing rightly", evidence, change)
                return
        kept = run.find("student", "kept_of_teacher")
        if kept is not None and (kept["high"] if kept["high"] is not None else kept["value"]) < self.least_kept:
            severity: Severity = "error" if kept["value"] < self.least_kept / 2 else "warning"
            evidence = f"{kept['value']:.1%} of the teacher's score, interval {_range(kept)}, on {kept['n']} rows"
            change = _MORE.format(run.last_stage)
            yield self.found(severity, "the student has lost much of what its teacher can do", evidence, change)
        mine, its = (run.find(model, "perplexity") for model in ("student", "teacher"))
        if kept is None and mine is not None and its is not None and mine["value"] > self.perplexity * its["value"]:
            evidence = f"perplexity {mine['value']:.3g}, the teacher's {its['value']:.3g}"
            change = _MORE.format(run.last_stage)
            yield self.found("warning", "the student predicts far worse than its teacher", evidence, change)

    def _slices(self, run: Run) -> Iterator[Finding]:
        """Slices whose loss is no chance; `details/slices` says it against the teacher, corrected for their number."""
        behind = run.find("student", "student_minus_teacher")
        if behind is None:  # slices are compared with the rest of the rows then, which says nothing of a loss
            return
        limit = min(behind["value"], 0.0) - self.least_slice
        rows = [row for row in run.detail("slices") or [] if row["model"] == "student"]
        bad = [row for row in rows if row["p_holm"] < 0.05 and row["difference"] < limit]
        if bad:
            evidence = "; ".join(
                f"{r['column']} = {r['value']}: {r['difference']:+.1%} on {r['n']} rows" for r in bad[:3]
            )
            change = "more rows of these (`generate`), or a `mixture` that draws them more often"
            yield self.found("warning", f"{len(bad)} slice(s) lose far more than the rest", evidence, change)

    def _classes(self, run: Run) -> Iterator[Finding]:
        told: dict[str, dict[str, Any]] = {"teacher": {}, "student": {}}
        for row in run.detail("classes") or []:
            if row["model"] in told and row["n"] >= self.few and row["recall"] is not None:
                told[row["model"]][row["class"]] = row["recall"]
        lost = [c for c, recall in told["student"].items() if recall == 0 and told["teacher"].get(c, 0) > 0.5]
        if lost:
            evidence = ", ".join(f"{c}: recall 0, the teacher's {told['teacher'][c]:.0%}" for c in lost[:3])
            change = "check the labels of these rows; more of them (`generate`), or a higher weight of kl"
            yield self.found("error", f"the student never answers {len(lost)} class(es) rightly", evidence, change)


def _range(row: dict[str, Any]) -> str:
    return "none" if row["low"] is None else f"{row['low']:.1%} to {row['high']:.1%}"
