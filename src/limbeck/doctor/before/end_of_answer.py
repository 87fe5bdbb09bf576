"""Does the student learn to stop?"""

from __future__ import annotations

from collections.abc import Iterator

from limbeck.core.parts import part
from limbeck.core.types import IGNORE
from limbeck.doctor._base import BeforeCheck, Finding
from limbeck.doctor.plan import Plan
from limbeck.tasks._decode import end_tokens
from limbeck.tasks.causal_lm import CausalCodec


@part
class EndOfAnswer(BeforeCheck):
    """Labels end with a token that ends an answer."""

    def look(self, plan: Plan) -> Iterator[Finding]:
        codec, model = plan.student.codec, plan.student.model
        if not isinstance(codec, CausalCodec):
            return
        ends = {codec.processor.eos_token_id} if model is None else end_tokens(codec.processor, model)
        names = ", ".join(codec.processor.convert_ids_to_tokens(sorted(ends)))
        for stage in plan.recipe.stages:
            last = [_last(f.values["labels"]) for f in plan.encoded(stage, plan.student).features]
            if not last:  # `lengths` says why
                continue
            without = sum(token not in ends for token in last)
            told = f"{len(last) - without:,} of {len(last):,} rows end with {names}"
            if without == len(last):
                reason, change = "no answer ends, so that the student would never stop", "a larger task.max_length"
                yield self.found("error", f"stage {stage.name}: {reason}", told, change)
            elif without > 0.05 * len(last):
                change = "a larger task.max_length, or task.too_long=drop"
                yield self.found("warning", f"stage {stage.name}: many answers are cut before their end", told, change)
            else:
                yield self.ok(f"stage {stage.name}: answers end", told)


def _last(labels: list[int]) -> int:
    return next((token for token in reversed(labels) if token != IGNORE), IGNORE)
