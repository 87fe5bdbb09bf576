"""Answers from an address as predictions: what counts as an answer, and what is no word on the model."""

from __future__ import annotations

import pytest

from limbeck.core.errors import DataError, ModelError
from limbeck.core.types import Sample
from limbeck.evaluation.endpoint import answered
from limbeck.evaluation.predictions import Predictions
from limbeck.generation.types import Completion, Failure, Outcome
from limbeck.tasks.causal_lm import CausalLM
from limbeck.verification.answers import without_thought

TASK = CausalLM()


def rows(count: int) -> list[Sample]:
    turns = [{"role": "user", "content": "How many?"}]
    return [Sample(f"test/{i}", {"messages": turns}, f"It is #### {i}") for i in range(count)]


def said(content: str, thought: str | None = None, finish: str = "stop") -> Completion:
    return Completion(content, thought, finish, 10, 5, "big")


def test_answers_are_read_behind_the_thought_and_refusals_are_wrong() -> None:
    outcomes: list[Outcome] = [
        said("So #### 0"),
        said("It is #### 7", "first I took #### 1"),
        said("", "it never ended #### 2", "length"),
        Failure("content_filter", "kept back"),
        said("four"),
    ]
    found = answered(rows(5), outcomes, TASK, "big")
    assert found["prediction"] == ["0", "7", None, None, None]
    assert found["correct"] == [True, False, False, False, False]
    assert found["parsed"] == [True, True, False, False, False]
    assert found["finished"] == [True, True, False, True, True]
    assert found["new_tokens"] == [5, 5, 5, None, 5]
    assert found["text"][1] == "<think>\nfirst I took #### 1\n</think>\n\nIt is #### 7"
    assert not (without_thought(found["text"][2]) or "").strip(), "a thought that was cut off is no answer"
    assert found["text"][3] == ""
    assert len(Predictions(found)) == 5
    twice = answered(rows(1) * 2, [said("#### 0"), said("#### 1")], TASK, "big", [1, 2])
    assert (twice["draw"], twice["correct"]) == ([1, 2], [True, False])


@pytest.mark.parametrize("reason", ["budget", "timeout", "rejected", "no_usage"])
def test_what_says_nothing_of_the_model_is_never_scored(reason: str) -> None:
    with pytest.raises(ModelError, match=rf"big left 1 of 2 rows(.|\n)*{reason} 1; for instance: so it was"):
        answered(rows(2), [said("#### 0"), Failure(reason, "so it was")], TASK, "big")


def test_a_row_without_a_final_answer_is_named() -> None:
    sample = Sample("test/9", rows(1)[0].inputs, "nine")
    with pytest.raises(DataError, match="test/9"):
        answered([sample], [said("#### 9")], TASK, "big")
