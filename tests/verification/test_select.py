"""From all answers to those that are kept; every answer is accounted for."""

from __future__ import annotations

from collections import Counter

import pytest

from limbeck.core.errors import DataError, RecipeError
from limbeck.verification.select import Keep, review
from limbeck.verification.types import Candidate, Held
from tests.verification.cases import candidate, sieve, verifier

MATH = {"type": "math_answer"}


def answers(prompt: str, *contents: str, reference: object = None) -> list[Candidate]:
    """The answers to one prompt."""
    return [candidate(text, reference, prompt, i) for i, text in enumerate(contents)]


def test_everything_is_kept_or_dropped_with_a_reason() -> None:
    given = [
        *answers("a", "#### 4", "2+2=4. #### 4", "#### 5", "who knows", reference=4),
        *answers("b", "#### 9", reference=4),
        candidate("#### 4", 4, "c", finish_reason="length"),
    ]
    found = review(given, verifier(MATH), [sieve("truncated")], Keep(most=1, prefer="shortest"))
    assert [each.id for each in found.kept] == ["a#0"]
    assert found.kept[0].meta["final_answer"] == "4"
    dropped = {each.id: reason for each, reason in found.dropped}
    assert dropped == {"a#1": "surplus", "a#2": "wrong", "a#3": "no_answer", "b#0": "wrong", "c#0": "truncated"}
    assert found.counts == Counter(dropped.values())
    assert found.facts["a"].pass_rate == 0.5
    assert (found.facts["a"].answers, found.facts["a"].right, found.facts["a"].kept) == (4, 2, 1)
    assert found.facts["b"].pass_rate == 0
    assert found.facts["c"].pass_rate == 0


def test_without_a_verifier_filters_decide() -> None:
    found = review(answers("a", "x", " "), filters=[sieve("empty")])
    assert [each.id for each in found.kept] == ["a#0"]
    assert found.facts["a"].pass_rate is None


def test_a_wrong_answer_does_not_hide_a_right_one_that_is_like_it() -> None:
    way = "First we count the birds on the roof, then the birds on the wall, and then we put them together. "
    given = answers("a", f"{way}#### 5", f"{way}#### 4", reference=4)
    duplicates = sieve({"type": "near_duplicate", "threshold": 0.7})
    assert [each.id for each in review(given, verifier(MATH), [duplicates]).kept] == ["a#1"]
    assert review(given, None, [duplicates]).counts == {"near_duplicate": 1}


def test_preferences() -> None:
    texts = (
        "We add two and two, which gives four in the end. #### 4",
        "We add two and two, which gives four at the end. #### 4",
        "Start at 3, go one up, and there you are, as anyone can see. #### 4",
        "Add. #### 4",
    )
    given = answers("a", *texts, reference=4)

    def kept(prefer: str, most: int = 2) -> list[str]:
        return [each.id for each in review(given, verifier(MATH), keep=Keep(most, prefer)).kept]  # type: ignore[arg-type]

    assert kept("first") == ["a#0", "a#1"]
    assert kept("shortest") == ["a#0", "a#3"]
    assert kept("diverse") == ["a#2", "a#3"]
    assert set(kept("diverse", 3)) >= {"a#2", "a#3"}
    assert kept("diverse", 9) == ["a#0", "a#1", "a#2", "a#3"]


def test_a_vote_stands_in_for_a_reference() -> None:
    given = [
        *answers("a", "#### 4", "\\boxed{4.0}", "#### 5", "none"),
        *answers("b", "#### 1", "#### 2"),
        *answers("c", "#### 7", "#### 8", "#### 8", reference=7),
    ]
    found = review(given, verifier(MATH), vote=True)
    assert [each.id for each in found.kept] == ["a#0", "a#1", "c#0"]
    assert found.counts == {"wrong": 2, "vote_tied": 2, "outvoted": 1, "no_answer": 1}
    assert found.facts["a"].voted == "4"
    assert found.facts["a"].share == 0.5, "of all four answers, the one that comes to nothing among them"
    assert found.facts["b"].voted is None
    assert found.facts["c"].voted == "8", "the vote is told even where the reference decides"
    assert review(given[:4], verifier(MATH), vote=0.6).counts == {"vote_too_close": 3, "no_answer": 1}


def test_what_cannot_be_done_is_said() -> None:
    given = answers("a", "#### 4")
    with pytest.raises(DataError, match="needs to know what is right"):
        review(given, verifier(MATH))
    with pytest.raises(RecipeError, match="vote"):
        review(given, vote=True)
    with pytest.raises(RecipeError, match="reads no final answer"):
        review(given, verifier("step_equations"), vote=True)
    with pytest.raises(RecipeError, match="needs a model"):
        review(given, verifier("judge"))


def test_evaluation_texts_and_a_model_are_handed_on() -> None:
    given = [candidate("x", prompt="a", question="What is two plus two?"), candidate("y", prompt="b")]
    found = review(
        given,
        verifier("judge"),
        [sieve("decontaminate")],
        against=[Held("what is two plus two")],
        ask=lambda asked: ["VERDICT: RIGHT"] * len(asked),
    )
    assert [each.prompt for each in found.kept] == ["b"]
    assert found.counts == {"contaminated": 1}


def test_what_no_file_can_hold_is_written_in_another_way() -> None:
    found = review([candidate('"\\ud800"')], verifier({"type": "json_schema", "schema": {"type": "string"}}))
    assert found.kept[0].meta["final_answer"] == '"\\ud800"'
    assert found.kept[0].meta["final_answer"].encode()
