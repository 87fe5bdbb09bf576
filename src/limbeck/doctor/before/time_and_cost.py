"""How long will it take, and what will it cost?"""

from __future__ import annotations

from collections.abc import Iterator

from limbeck.core.parts import part
from limbeck.doctor._base import BeforeCheck, Finding
from limbeck.doctor.figures import in_time
from limbeck.doctor.plan import Plan, Writing, called


@part
class TimeAndCost(BeforeCheck):
    """Time of all steps, from a probe of a few; tokens and money of the data stages."""

    def look(self, plan: Plan) -> Iterator[Finding]:
        for each in plan.writing():
            yield self.ok(f"generate ({each.stage}): {each.model}", _cost(each))
        steps = {called(reader, stage): plan.steps(stage) for reader, stage in plan.trained}
        told = ", ".join(f"{name} {count:,} steps" for name, count in steps.items())
        if plan.recipe.baseline:
            told += ", and as many again for the baseline"
        if plan.probe is None:
            yield self.found("note", "how long it takes was not measured", told, "limbeck doctor RECIPE --probe")
            return
        took = plan.probe.seconds
        seconds = sum(took[name] * count for name, count in steps.items())
        if plan.recipe.baseline:
            seconds += sum(took[stage.name] * steps[stage.name] for stage in plan.recipe.stages)
        parts = ", ".join(f"{name} {1000 * took[name]:.0f} ms a step x {count:,}" for name, count in steps.items())
        evidence = f"{parts}; from {plan.probe.steps} steps of each on {plan.probe.device}"
        yield self.ok(f"the training takes about {in_time(seconds)}, validation and evaluation not counted", evidence)


def _cost(writing: Writing) -> str:
    told = f"{writing.requests:,} requests, at most {writing.tokens:,} tokens"
    return told if writing.cost is None else f"{told}, at most {writing.cost:,.2f} {writing.currency}"
