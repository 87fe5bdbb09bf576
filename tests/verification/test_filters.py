"""Each filter drops what it is for, with its reason, and lets the rest through."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from limbeck.core.errors import RecipeError
from limbeck.verification.grams import grams, likeness, signature
from limbeck.verification.types import Held
from tests.verification.cases import candidate, reasons, sieve

SENTENCE = "the cat sat on a mat and saw how many birds flew over red roofs while rain fell in old towns"


def prose(seed: int, length: int = 80) -> str:
    """A text of random words."""
    draws = random.Random(seed)
    return " ".join(draws.choices(SENTENCE.split(), k=length))


def test_truncated() -> None:
    given = [
        candidate("x"),
        candidate("x", finish_reason="length"),
        candidate("<think>x"),
        candidate("<think>y</think>x"),
    ]
    assert reasons("truncated", *given) == [None, "truncated", "unclosed_think", None]


def test_truncated_within_a_sentence() -> None:
    texts = ["It is four.", "The answer is B", "#### 94", "It is $x$", "The answer is B, since the", "It is", "是四。"]
    found = reasons({"type": "truncated", "whole_sentences": True}, *(candidate(text) for text in texts))
    assert found == [None, None, None, None, "mid_sentence", "mid_sentence", None]
    assert reasons("truncated", candidate("It is")) == [None]


def test_empty() -> None:
    given = [candidate(" \n", reasoning_content="x"), candidate("<think>x</think> "), candidate("x")]
    assert reasons("empty", *given) == ["empty", "empty", None]
    assert reasons({"type": "empty", "thought": True}, *given) == ["empty", "empty", "no_thought"]
    assert reasons({"type": "empty", "thought": True}, candidate("<think>x</think>y")) == [None]


def test_length() -> None:
    bounds = {"type": "length", "min_thought": 2, "max_answer": 3, "unit": "words"}
    given = [
        candidate("one two three", reasoning_content="a b"),
        candidate("one two three four", reasoning_content="a b"),
        candidate("one", reasoning_content="a"),
        candidate("<think>a b</think>one"),
    ]
    assert reasons(bounds, *given) == [None, "long_answer", "short_thought", None]
    for wrong in ({}, {"min_answer": 3, "max_answer": 2}, {"min_answer": 1, "unit": "tokens"}):
        with pytest.raises(ValueError, match=r"bound|least|belong"):
            sieve({"type": "length", **wrong})


def test_language() -> None:
    mixed = "First we add the two numbers 然后我们把结果乘以三就得到最后的答案了"
    given = [
        candidate("The answer is $\\alpha + 3$.", reasoning_content="We take θ and add λ to it."),
        candidate("The answer is 3.", reasoning_content=mixed),
        candidate("答案是三", reasoning_content="We add."),
        candidate("42"),
    ]
    assert reasons("language", *given) == [None, "language_thought", "language_answer", None]
    assert reasons({"type": "language", "script": ["latin", "han"]}, *given) == [None] * 4
    assert reasons({"type": "language", "script": "han"}, given[2]) == ["language_thought"]
    assert reasons({"type": "language", "script": "han", "thought": False}, given[2]) == [None]


def test_near_duplicate_answers_are_rivals_of_one_prompt() -> None:
    text = prose(0)
    near = text.replace("cat", "CAT") + " today"
    given = [candidate(text), candidate(near), candidate(prose(1)), candidate(text, prompt="q")]
    assert reasons("near_duplicate", *given) == [None, "near_duplicate", None, None]
    assert reasons({"type": "near_duplicate", "threshold": 1.0}, *given) == [None] * 4


def test_near_duplicate_questions_go_with_all_their_answers() -> None:
    one, two = prose(0), prose(1)
    asked = [("p", one), ("p", one), ("q", one + " now"), ("q", one + " now"), ("r", two)]
    given = [candidate("x", prompt=prompt, question=question) for prompt, question in asked]
    gone = "near_duplicate_question"
    assert reasons({"type": "near_duplicate", "of": "questions"}, *given) == [None, None, gone, gone, None]


def test_signatures_estimate_likeness() -> None:
    base = prose(3, 400).split()
    for changed in (5, 40, 160):
        draws = random.Random(changed)
        other = [f"w{i}" if i in set(draws.sample(range(400), changed)) else word for i, word in enumerate(base)]
        one, two = grams(base, 3), grams(other, 3)
        agree = float((signature(one) == signature(two)).mean())
        assert abs(agree - likeness(one, two)) < 0.15


def test_decontaminate() -> None:
    test_row = prose(5, 30)
    piece = " ".join(test_row.split()[8:21])
    bound = sieve("decontaminate").against([Held(test_row), Held("What is two plus two?", "It is four.")])
    given = [
        candidate("x", question=f"Say: {piece.upper()}!"),
        candidate("x", prompt="b", question=" ".join(test_row.split()[8:20]) + " nothing"),
        candidate("x", prompt="c", question="what is two plus two"),
        candidate("x", prompt="d", question="what is two plus two plus one"),
        candidate("x", prompt="e", reasoning_content=f"I remember {piece}"),
        replace(candidate("x", prompt="f"), messages=({"role": "user", "content": piece}, *candidate("x").messages)),
        candidate("It is four.", prompt="g"),
    ]
    found = [reason for _, reason in bound.judge(given)]
    assert found == ["contaminated", None, "contaminated", None, "contaminated", "contaminated", None]
    with pytest.raises(RecipeError, match="no evaluation texts"):
        list(sieve("decontaminate").judge(given))


def test_decontaminate_knows_the_answers_of_evaluation_rows() -> None:
    solution = prose(9, 30)
    given = [candidate(f"So: {' '.join(solution.split()[3:16])}."), candidate(prose(10, 30))]
    for config, reason in (
        ({"type": "decontaminate"}, "contaminated"),
        ({"type": "decontaminate", "answers": False}, None),
    ):
        bound = sieve(config).against([Held("Which one?", solution)])
        assert [found for _, found in bound.judge(given)] == [reason, None]


def test_repetition() -> None:
    rounds = prose(6, 25)
    given = [
        candidate(prose(7, 400)),
        candidate(f"{prose(8, 50)} " + f"{rounds} " * 4),
        candidate(f"{prose(8, 50)} " + f"{rounds} " * 3),
        candidate("0, " * 100),
        candidate("0, " * 10),
        candidate("等等，让我再想想。" * 10),  # noqa: RUF001
        candidate("a short one"),
    ]
    assert reasons("repetition", *given) == [None, "repetition", None, "repetition", None, "repetition", None]


def test_think_tags() -> None:
    cases = {
        "<think>a</think>b": None,
        "b": None,
        "\n<think>a</think>b": None,
        "<think>a": "unclosed_think",
        "a</think>b": "unopened_think",
        "<think>a<think>b</think>c": "nested_think",
        "<think>a</think>b</think>c": "unopened_think",
        "Well. <think>a</think>b": "late_think",
        "<think>a</think>b<think>c</think>": "second_think",
    }
    assert reasons("think_tags", *(candidate(text) for text in cases)) == list(cases.values())
    inner = [candidate("x", reasoning_content="a </think> b"), candidate("</think>x", reasoning_content="a")]
    assert reasons("think_tags", *inner) == ["nested_think", "unopened_think"]


def test_special_tokens() -> None:
    texts = ["a <|im_end|> b", "<\uff5cend\u2581of\u2581sentence\uff5c>", "[INST]", "</s>", "a <b> |x| [1] <|> y"]
    gone = "special_token"
    assert reasons("special_tokens", *(candidate(text) for text in texts)) == [gone, gone, gone, gone, None]
    assert reasons({"type": "special_tokens", "allow": ["</s>"]}, candidate("</s>")) == [None]
    assert reasons({"type": "special_tokens", "also": ["[STOP]"]}, candidate("[STOP]")) == [gone]
    assert reasons("special_tokens", candidate("x", question="<|im_start|>system")) == ["special_token_question"]
    assert reasons("special_tokens", candidate("x", reasoning_content="<|eot_id|>")) == [gone]
