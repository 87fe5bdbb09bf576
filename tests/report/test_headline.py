"""The sentence at the top says what the scores carry, and no more."""

from __future__ import annotations

import pytest

from limbeck.report.facts import Facts
from limbeck.report.headline import against_teacher, headline, verdict
from limbeck.report.words import words
from tests.report.made import changed, make_facts, score, without


def said(**changes: object) -> str:
    return headline(make_facts(steps=[], evals=[], baseline_steps=[], baseline_evals=[], **changes)).replace(
        "\u00a0", " "
    )


def test_better() -> None:
    assert said() == (
        "The student keeps 98.6 % of the teacher's accuracy at 1/14 of its size and answers 3.2 times as fast; "
        "it is 2.1 points [0.9, 3.2] better than the same student trained without the teacher."
    )


def test_what_is_shipped_has_a_sentence_of_its_own() -> None:
    kept = score("compressed", "comparison", "kept_of_teacher", 0.981, unit="ratio")
    fast = score("compressed", "efficiency", "speedup", 26.4, unit="x")
    assert said(scores=[*without(), kept, fast]).endswith(
        "without the teacher. Compressed, it keeps 98.1 % at 26 times the teacher's speed."
    )
    assert "Compressed" not in said(scores=[*without(), fast])


def test_interval_with_zero_is_no_difference() -> None:
    text = said(scores=changed("student_minus_baseline", value=0.004, low=-0.008, high=0.016))
    shown = "(+0.4 points [\u22120.8, +1.6])"
    assert text.endswith(f"; no difference from the same student trained without the teacher could be shown {shown}.")
    assert "better" not in text


def test_worse_says_so() -> None:
    text = said(scores=changed("student_minus_baseline", value=-0.0213, low=-0.0331, high=-0.009))
    assert "it is 2.1 points [0.9, 3.3] worse than the same student" in text


@pytest.mark.parametrize("bounds", [{"low": None, "high": None}, {"n": 1}])
def test_no_interval_no_claim(bounds: dict[str, object]) -> None:
    text = said(scores=changed("student_minus_baseline", **bounds))
    assert "may be chance" in text
    assert "better" not in text


def test_without_baseline() -> None:
    text = said(scores=without("baseline", names=("student_minus_baseline",)))
    assert text.endswith("answers 3.2 times as fast.")


def test_without_teacher() -> None:
    names = ("kept_of_teacher", "agreement_with_teacher", "size_ratio", "speedup")
    text = said(scores=without("teacher", names=names))
    assert text == (
        "The student reaches an accuracy of 91.8 % [90.8, 92.8] at 1.6 M parameters and answers in 1.4 ms; "
        "it is 2.1 points [0.9, 3.2] better than the same student trained on the labels alone."
    )


def test_slower_and_larger() -> None:
    scores = [*without(names=("speedup", "size_ratio"))]
    scores += [score("student", "efficiency", "speedup", 0.62, low=0.6, high=0.64, unit="x")]
    scores += [score("student", "efficiency", "size_ratio", 0.8, unit="x")]
    assert "at 1.2 times its size and is slower (0.62 times the teacher's speed)" in said(scores=scores)


def test_speed_that_could_be_the_same() -> None:
    assert "answers about as fast" in said(scores=changed("speedup", value=1.2, low=0.9, high=1.5))


def test_student_above_its_teacher() -> None:
    text = said(scores=changed("kept_of_teacher", value=1.012, low=1.002, high=1.022))
    assert text.startswith("The student reaches 101.2 % of the teacher's accuracy")


@pytest.mark.parametrize(
    ("value", "low", "high", "expected"),
    [
        (-0.0431, -0.06, -0.02, "its perplexity is 4.2 % [2.0, 5.8] lower (better) than that of the same student"),
        (0.0431, 0.02, 0.06, "its perplexity is 4.4 % [2.0, 6.2] higher (worse) than that of the same student"),
        (0.01, -0.01, 0.03, "no difference from the same student trained without the teacher could be shown"),
    ],
)
def test_perplexity(value: float, low: float, high: float, expected: str) -> None:
    more = {"low": low, "high": high, "unit": "nats per token"}
    scores = [
        score("student", "accuracy", "perplexity", 12.31, low=12.0, high=12.6, unit="per token"),
        score("teacher", "accuracy", "perplexity", 10.04, low=9.8, high=10.3, unit="per token"),
        score("student", "comparison", "log_perplexity_minus_baseline", value, **more),
    ]
    text = said(scores=scores)
    assert text.startswith("The student has a perplexity of 12.3, against the teacher's 10.0,")
    assert expected in text


def test_answers_lead_where_they_are_graded() -> None:
    scores = [
        score("student", "accuracy", "perplexity", 12.31, unit="per token"),
        score("student", "accuracy", "answer_accuracy", 0.5, low=0.4, high=0.6),
    ]
    assert said(scores=scores) == "The student reaches an answer accuracy of 50.0 % [40.0, 60.0]."


def test_nothing_recorded() -> None:
    assert headline(Facts("x", {}, [])) == "No scores were recorded for the student."
    nan = [score("student", "accuracy", "accuracy", float("nan"))]
    assert headline(Facts("x", {}, nan)) == "No scores were recorded for the student."


def test_readings() -> None:
    row = score("student", "comparison", "student_minus_baseline", 0.02, low=0.0, high=0.04)
    assert verdict(row).tone == "open"
    kept = score("student", "comparison", "kept_of_teacher", 0.99, low=0.97, high=1.01)
    assert against_teacher(kept).words(words("en")) == "no difference shown"
