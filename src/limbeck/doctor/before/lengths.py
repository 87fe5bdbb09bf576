"""Do the rows fit?"""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from limbeck.core.parts import part
from limbeck.core.types import IGNORE
from limbeck.doctor._base import BeforeCheck, Finding
from limbeck.doctor.plan import Plan, Read
from limbeck.models.load import check_length
from limbeck.tasks import Feature
from limbeck.tasks.causal_lm import CausalCodec


@part
class Lengths(BeforeCheck):
    """Rows that are cut or dropped, positions of the models, and answers longer than the evaluation lets them be."""

    most: float = Field(default=0.02, gt=0, lt=1)
    """Share of the rows that may be cut or dropped."""

    def look(self, plan: Plan) -> Iterator[Finding]:
        for reader, stage in plan.trained:
            encoded = plan.encoded(stage, reader)
            if not encoded.features and not encoded.counts:
                continue
            who = f"stage {stage.name}"
            lost = {reason: n for reason, n in encoded.counts.items() if n}
            told = ", ".join(f"{n:,} {reason.replace('_', ' ')}" for reason, n in lost.items())
            count = len(encoded) + sum(n for reason, n in lost.items() if reason.startswith("dropped"))
            longest = max((f.length for f in encoded.features), default=0)
            if reader.model is not None:
                check_length(reader.model, longest, f"the {reader.name}")
            if not encoded.features:
                yield self.found("error", f"{who}: no row is left", told, "a larger task.max_length")
            elif not longest:
                yield self.found("error", f"{who}: no row holds a token", told, f"another {reader.name}.tokenizer")
            elif sum(lost.values()) > self.most * count:
                change = "a larger task.max_length, or shorter rows"
                yield self.found("warning", f"{who}: many rows are cut or dropped", f"{told} of {count:,}", change)
            elif longest > 1:
                yield self.ok(f"{who}: rows fit", f"longest {longest:,} tokens; {told or 'none cut or dropped'}")
        yield from self._answers(plan, plan.student)

    def _answers(self, plan: Plan, reader: Read) -> Iterator[Finding]:
        """What the evaluation would cut off, judged by the answers that are learned."""
        codec, most = reader.codec, plan.recipe.evaluate.max_new_tokens
        if not isinstance(codec, CausalCodec) or codec.task.answer_pattern is None:
            return
        sizes = [_answer(f) for f in plan.encoded(plan.recipe.stages[-1], reader).features]
        longer = sum(size > most for size in sizes)
        if longer > self.most * len(sizes):
            evidence = (
                f"{longer:,} of {len(sizes):,} answers to learn have more than {most} tokens, up to {max(sizes):,}"
            )
            change = f"evaluate.max_new_tokens={max(sizes)}"
            yield self.found("warning", "the evaluation would cut answers off", evidence, change)


def _answer(feature: Feature) -> int:
    return sum(token != IGNORE for token in feature.values["labels"])
