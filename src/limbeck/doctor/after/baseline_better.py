"""Is the teacher worth its while?"""

from __future__ import annotations

from collections.abc import Iterator

from limbeck.core.parts import part
from limbeck.doctor._base import AfterCheck, Finding
from limbeck.doctor.run import Run


@part
class BaselineBetter(AfterCheck):
    """The same student, trained on the labels alone, is better than the taught one."""

    def look(self, run: Run) -> Iterator[Finding]:
        for name, sign in (("student_minus_baseline", 1), ("log_perplexity_minus_baseline", -1)):
            row = run.find("student", name)
            if row is None or row["low"] is None:
                continue
            low, high = sorted((sign * row["low"], sign * row["high"]))
            told = f"{name} {row['value']:+.3f}, interval {row['low']:+.3f} to {row['high']:+.3f}, on {row['n']} rows"
            if high < 0:
                yield self.found("error", "the student is better without its teacher", f"{told}{_scores(run)}", _CHANGE)
            elif low > 0:
                yield self.ok("the teacher helps", told)
            else:
                yield self.ok("chance explains the difference to the student without a teacher", told)


_CHANGE = (
    "a better teacher (teacher.finetune.epochs); more weight on cross_entropy, less on terms that ask the teacher; "
    "temperature nearer to 1; check that both read the same rows"
)


def _scores(run: Run) -> str:
    """Whether the teacher itself is good."""
    for name in ("accuracy", "answer_accuracy", "perplexity"):
        found = {model: run.find(model, name) for model in ("teacher", "student", "baseline")}
        if all(found.values()):
            return f"; {name}: " + ", ".join(f"{m} {r['value']:.4g}" for m, r in found.items() if r is not None)
    return ""
