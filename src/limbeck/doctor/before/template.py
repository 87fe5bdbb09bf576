"""Is what is to be learned still there once the template has written it?"""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from limbeck.core.parts import part
from limbeck.core.types import IGNORE, Sample
from limbeck.data.thinking import CLOSE, OPEN, split_thought
from limbeck.doctor._base import BeforeCheck, Finding
from limbeck.doctor.plan import Plan
from limbeck.tasks import Feature
from limbeck.tasks.causal_lm import CausalCodec


@part
class Template(BeforeCheck):
    """Answers, and thoughts before them, are in the labels word for word."""

    rows: int = Field(default=64, gt=0)
    """How many rows of each stage are read back."""

    def look(self, plan: Plan) -> Iterator[Finding]:
        codec = plan.student.codec
        if type(codec) is not CausalCodec:  # others write marks between, and test by themselves what they write
            return
        way = "chat template" if codec.chat else "plain prompt and answer"
        for stage in plan.recipe.stages:
            seen = plan.encoded(stage, plan.student).features[: self.rows]
            if not seen:  # `lengths` says why
                continue
            thoughts = [f for f in seen if CLOSE in str(_sample(f).target)]
            if thoughts and codec.task.reasoning == "drop":
                evidence = f"{len(thoughts)} of {len(seen)} rows have one"
                reason = f"stage {stage.name}: thoughts are left out"
                yield self.found("note", reason, evidence, "task.reasoning=keep, to learn them")
            lost = [feature.id for feature in seen if not _is_whole(feature, codec)]
            if lost:
                evidence = f"{len(lost)} of {len(seen)} rows, {lost[0]} among them ({way})"
                reason = f"stage {stage.name}: the labels do not spell the answer"
                yield self.found("error", reason, evidence, "task.template=plain, or another tokenizer")
            else:
                told = f"{len(seen)} rows read back ({way}), {len(thoughts)} with a thought"
                yield self.ok(f"stage {stage.name}: the template keeps what is to be learned", told)


def _sample(feature: Feature) -> Sample:
    assert feature.source is not None, "language models' features keep their samples"
    return feature.source


def _is_whole(feature: Feature, codec: CausalCodec) -> bool:
    """Whether the labels spell the whole answer, or as much of it as fits; white space aside."""
    target = _sample(feature).target
    said = split_thought(target)
    wanted = said.content if codec.task.reasoning == "drop" and said.closed else target
    labels = [i for i in feature.values["labels"] if i != IGNORE]
    told = "".join(codec.processor.decode(labels, clean_up_tokenization_spaces=False).split())
    words = wanted.replace(OPEN, " ").replace(CLOSE, " ").split()
    if feature.length + 1 >= codec.task.max_length:  # cut: what is left must be the beginning
        words = words[: len(words) // 4]
    at = 0
    for word in words:
        at = told.find(word, at) + len(word)
        if at < len(word):
            return False
    return True
