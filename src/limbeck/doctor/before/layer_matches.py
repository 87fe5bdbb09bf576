"""Are the layers there that terms compare?"""

from __future__ import annotations

from collections.abc import Iterator

from limbeck.alignment.layers import match_layers
from limbeck.core.parts import part
from limbeck.doctor._base import BeforeCheck, Finding
from limbeck.doctor.plan import Plan
from limbeck.objectives.base import BatchTerm


@part
class LayerMatches(BeforeCheck):
    """Patterns of terms name layers of both models, as many of one as of the other."""

    def look(self, plan: Plan) -> Iterator[Finding]:
        student = plan.student.model
        teacher = plan.teachers[0].model if plan.teachers else student
        for stage in plan.recipe.stages:
            for term in (each for each in stage.terms if isinstance(each, BatchTerm) and each.pairs()):
                if student is None or teacher is None:
                    reason = f"stage {stage.name}: the layers of {term.label} cannot be seen before the run"
                    yield self.found("note", reason, "the model's code comes with it, and is not run here")
                    continue
                pairs = match_layers(student, teacher, term.pairs())
                told = ", ".join(mine if theirs is None else f"{mine} <- {theirs}" for mine, theirs in pairs[:4])
                more = f" and {len(pairs) - 4} more" if len(pairs) > 4 else ""
                yield self.ok(f"stage {stage.name}: the layers of {term.label} are there", told + more)
