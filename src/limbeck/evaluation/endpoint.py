"""Answers of a model behind an address as a table of predictions: text alone, no distributions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from limbeck.core.errors import ModelError
from limbeck.core.types import Sample
from limbeck.data.thinking import OPEN, fold
from limbeck.evaluation.predict import final_answers
from limbeck.evaluation.predictions import Columns
from limbeck.generation.types import Completion, Failure, Outcome
from limbeck.tasks.causal_lm import CausalLM

NOTHING_SAID = frozenset({"empty", "content_filter"})
"""Reasons for which a model is held to have answered with nothing; all others say nothing of the model."""


def answered(
    samples: Sequence[Sample], outcomes: Sequence[Outcome], task: CausalLM, name: str, draws: Sequence[int] = ()
) -> Columns:
    """What came back as columns: id, target, text, prediction, correct, parsed, finished, new_tokens and draw.

    The final answer is read from what was said behind the thought. An empty answer and one that the endpoint keeps
    back are wrong.

    Args:
        samples: rows with a gradable answer.
        outcomes: one for each.
        task: reads final answers.
        name: what an error calls the model.
        draws: the number of each answer; left out: all are first ones.

    Raises:
        DataError: a row's own answer cannot be graded.
        ModelError: rows stayed unanswered for a reason that says nothing of the model.
    """
    _refuse_unanswered(outcomes, name)
    targets = final_answers(task, samples)
    said = [each if isinstance(each, Completion) else None for each in outcomes]
    predictions = [task.extract(each.content) if each is not None else None for each in said]
    return {
        "id": [s.id for s in samples],
        "target": targets,
        "text": [_text(each) for each in said],
        "prediction": predictions,
        "correct": [p == t for p, t in zip(predictions, targets, strict=True)],
        "parsed": [p is not None for p in predictions],
        "finished": [each is None or each.finish_reason == "stop" for each in said],
        "new_tokens": [None if each is None else each.completion_tokens for each in said],
        "draw": list(draws) or [0] * len(samples),
    }


def _refuse_unanswered(outcomes: Sequence[Outcome], name: str) -> None:
    lost = [each for each in outcomes if isinstance(each, Failure) and each.reason not in NOTHING_SAID]
    if not lost:
        return
    counts = Counter(each.reason for each in lost)
    raise ModelError(
        f"{name} left {len(lost):,} of {len(outcomes):,} rows unanswered, so that it cannot be scored",
        got=f"{', '.join(f'{reason} {n:,}' for reason, n in counts.most_common())}; for instance: {lost[0].detail}",
        fix="see to it, or raise the budget, and run again; what was answered is kept",
    )


def _text(said: Completion | None) -> str:
    """All that was written; a thought that was cut off stays open."""
    if said is None:
        return ""
    if said.reasoning_content is None:
        return said.content
    whole = fold(said.reasoning_content, said.content)
    return whole if said.content.strip() else f"{OPEN}\n{said.reasoning_content}"
