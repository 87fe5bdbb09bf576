"""Answers that rows hold already, as candidates to judge."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

from limbeck.core.errors import DataError
from limbeck.core.recipe import Generate
from limbeck.core.types import Sample
from limbeck.data.thinking import split_thought
from limbeck.pipeline._prompts import reference_of
from limbeck.verification.types import Candidate


def recorded_answers(stage: Generate, samples: Sequence[Sample]) -> list[Candidate]:
    """A candidate for each row; rows with the same conversation are answers to one prompt.

    A thought that was never closed is an answer that was cut off.

    Raises:
        DataError: a row has no answer, or none of the columns that say what is right.
    """
    first: dict[str, str] = {}
    seen = Counter[str]()
    found = []
    for sample in samples:
        if not isinstance(sample.target, str) or not sample.target.strip():
            raise DataError(f"generate ({stage.name}): row {sample.id} holds no answer", fix="data.answer=COLUMN")
        turns = tuple(sample.inputs["messages"])
        prompt = first.setdefault(json.dumps(turns, sort_keys=True), sample.id)
        said = split_thought(sample.target)
        found.append(
            Candidate(
                f"{stage.name}/{prompt}#{seen[prompt]}",
                prompt,
                turns,
                said.content,
                said.reasoning_content,
                "stop" if said.closed else "length",
                reference_of(stage, sample),
                {**sample.meta, "sample": seen[prompt], "completion": {}},
            )
        )
        seen[prompt] += 1
    return found
