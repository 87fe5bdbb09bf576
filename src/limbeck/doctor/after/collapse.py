"""Does the student still say different things of different rows?"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

from pydantic import Field

from limbeck.core.parts import part
from limbeck.doctor._base import AfterCheck, Finding, Severity
from limbeck.doctor.figures import entropy
from limbeck.doctor.run import Run

_CHANGE = (
    "stages.{0}.learning_rate a tenth, stages.{0}.warmup_ratio=0.1; more weight on cross_entropy; kl in place of "
    "reverse_kl, which seeks one mode; temperature nearer to 1"
)


@part
class Collapse(AfterCheck):
    """One answer for everything: the entropy of what is answered, beside that of what is right."""

    least: float = Field(default=0.6, gt=0, lt=1)
    """The number of answers in use, exp(entropy), as a share of that of the targets; less is a collapse."""
    few: int = Field(default=20, gt=1)
    """Fewer rows say nothing."""

    def look(self, run: Run) -> Iterator[Finding]:
        table = run.predictions("student")
        if len(table.get("prediction", [])) >= self.few and "target" in table:
            yield from self._against(table["prediction"], table["target"], _CHANGE.format(run.last_stage))
        if len(table.get("text", [])) >= self.few and _share(table.get("target", [])) < 0.5:
            yield from self._same_text(table["text"], _CHANGE.format(run.last_stage))

    def _against(self, said: list[Any], right: list[Any], change: str) -> Iterator[Finding]:
        used, wanted = math.exp(entropy(said)), math.exp(entropy(right))
        answer, count = Counter(said).most_common(1)[0]
        told = f"{used:.1f} answers in use (exp of the entropy), {wanted:.1f} in the targets; "
        told += f"{answer!r} on {count / len(said):.0%}"
        if wanted > 1.5 and used < self.least * wanted:
            severity: Severity = "error" if used < 1.1 else "warning"
            yield self.found(severity, "the student has collapsed onto few answers", told, change)
        else:
            yield self.ok("the student tells rows apart", told)

    def _same_text(self, texts: list[str | None], change: str) -> Iterator[Finding]:
        text, count = Counter(texts).most_common(1)[0]
        if count > len(texts) / 2:
            told = f"{count} of {len(texts)} answers are {str(text)[:60]!r}"
            yield self.found("error", "the student writes one text for most prompts", told, change)


def _share(values: list[Any]) -> float:
    """How much of a list its most frequent value is."""
    return Counter(values).most_common(1)[0][1] / len(values) if values else 0.0
