"""Language modelling where student and teacher have different tokenizers: each reads the text in its own tokens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from limbeck.alignment.spans import common_spans, coverage
from limbeck.core.errors import DataError, ModelError
from limbeck.core.types import IGNORE, Batch, Sample
from limbeck.tasks._base import Encoded, Feature
from limbeck.tasks._text import pad
from limbeck.tasks.causal_lm import CausalCodec

STAND_IN = "an answer of no other meaning"
"""Takes the place of an answer, to see where a template puts it."""
LEAST = 0.5
"""Share of the answers' tokens that must be matched; with less, the teacher is hardly heard."""


class PairedCodec(CausalCodec):
    """Batches for a student, each with the same samples as the teacher reads them, and with the stretches they share.

    Only the answers are matched; prompts, templates and end tokens are each model's own. The end of an answer is a
    stretch of its own.

    Args:
        student: the student's tokenizer.
        teacher: makes the teacher's batches.
        longest: the most tokens in a stretch, see `alignment.spans`.

    Reference:
        Minixhofer et al., Universal Cross-Tokenizer Distillation via Approximate Likelihood Matching, 2025,
        arXiv:2503.20083.
    """

    packs = False

    def __init__(self, student: Any, teacher: CausalCodec, longest: int = 8):
        super().__init__(student, teacher.task)
        self.teacher, self.longest = teacher, longest

    def encode(self, samples: Iterable[Sample]) -> Encoded:
        samples = list(samples)
        mine, theirs = super().encode(samples), self.teacher.encode(samples)
        read = {feature.id: feature for feature in theirs.features}
        by_id = {sample.id: sample for sample in samples}
        features, counts = [], Counter(mine.counts)
        for feature in mine.features:
            if feature.id not in read:
                counts["dropped_too_long_for_the_teacher"] += 1
                continue
            features.append(self._matched(feature, read[feature.id], by_id[feature.id]))
        if features and (share := matched_share(features)) < LEAST:
            raise ModelError(
                "the tokenizers of student and teacher cut the answers at too few common places",
                got=f"{share:.0%} of the answers' tokens are matched",
                allowed=f"{LEAST:.0%} or more",
                fix="a student whose tokenizer is closer to the teacher's, or terms that need no teacher",
            )
        return Encoded(features, counts, mine.facts)

    def _matched(self, mine: Feature, theirs: Feature, sample: Sample) -> Feature:
        ours, their_offsets = self._offsets(self, sample), self._offsets(self.teacher, sample)
        one, other = common_spans(ours, their_offsets, self.longest)
        ends = max([*one, *other], default=-1) + 1
        values = {
            **mine.values,
            "spans": _placed(one, mine, ends),
            "teacher": Feature(theirs.id, theirs.length, {**theirs.values, "spans": _placed(other, theirs, ends)}),
        }
        return replace(mine, values=values)

    @staticmethod
    def _offsets(codec: CausalCodec, sample: Sample) -> list[tuple[int, int]]:
        """Of the answer's tokens, in characters of the sample's own answer; what a template adds lies outside."""
        _, after = codec.texts(sample)
        taught = codec.body(sample)
        begin, length = _begin(codec, sample, after, taught), len(taught)
        read = codec.processor(after, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        offsets = [(a - begin, b - begin) for a, b in read["offset_mapping"]]
        return [(a, b) if b <= length else (length + 1, length + 1) for a, b in offsets]

    def collate(self, features: Sequence[Feature], side: str = "right") -> Batch:
        told = [f.values["teacher"] for f in features]
        teacher = replace(self.teacher.collate(told, side), spans=pad([f.values["spans"] for f in told], -1, side))
        spans = pad([f.values["spans"] for f in features], -1, side)
        return replace(super().collate(features, side), spans=spans, teacher=teacher)


def _begin(codec: CausalCodec, sample: Sample, after: str, taught: str) -> int:
    """Where what is taught begins in what a template makes of it.

    Raises:
        DataError: a template writes the thought in a form of its own, or the place is unclear.
    """
    times = after.count(taught)
    if not times:
        raise DataError(
            f"sample {sample.id}: a chat template writes thoughts in a form that cannot be matched",
            got=repr(after)[:80],
            fix="task.template=plain, or task.reasoning=drop",
        )
    if not codec.chat or times == 1:
        return after.index(taught)
    # A short answer may stand in the template's own words too ("hi" in "<think>"); a text that does not, tells where.
    begin = codec.texts(replace(sample, target=STAND_IN))[1].index(STAND_IN)
    if not after.startswith(taught, begin):
        raise DataError(
            f"it is unclear where the answer of sample {sample.id} begins in the chat template",
            got=repr(after)[:160],
            fix="task.template=plain",
        )
    return begin


def matched_share(features: Iterable[Feature]) -> float:
    """Share of the answers' tokens that belong to a stretch."""
    return coverage(
        [[s for s, y in zip(f.values["spans"], f.values["labels"], strict=True) if y != IGNORE] for f in features]
    )


def _placed(spans: Sequence[int], feature: Feature, end: int) -> list[int]:
    """Stretches by label, for the answer's tokens as the row holds them; the end token has the number `end`."""
    labels = feature.values["labels"]
    first = next((i for i, label in enumerate(labels) if label != IGNORE), len(labels))
    placed = [-1] * first + list(spans)[: len(labels) - first]
    whole = len(placed) < len(labels)
    placed += [-1] * (len(labels) - len(placed))
    if whole:
        placed[-1] = end
    return placed
