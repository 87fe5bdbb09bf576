"""Final answers are read where they stand, and nowhere else."""

# ruff: noqa: RUF001 - Chinese text is meant
from __future__ import annotations

import time

import pytest

from limbeck.core.errors import DataError
from limbeck.verification.answers import fenced, final_value, number_of
from tests.verification.cases import candidate, verdict, verifier


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("64+5=69. 69+25=94. #### 94", "94"),
        ("So it is \\boxed{94}.", "94"),
        ("\\[ \\boxed{\\text{94}} \\]", "94"),
        ("**Answer:** 94", "94"),
        ("The final answer is $94.", "94"),
        ("The answer to the question is 94 eggs. She sells 3 more.", "94 eggs"),
        ("<ANSWER>94</ANSWER>", "94"),
        ("答案是94。", "94"),
        ("A: 94", "94"),
        ("64+5=69.\nSo he has 94 left.", "94"),
        ("\\boxed{12}? No. \\boxed{94}", "94"),
        ("The answer is 12. Wait, that forgets 82.\n#### 94", "94"),
        ("<think>\\boxed{12}</think>\nThe answer is \\boxed{94}", "94"),
    ],
)
def test_math_answer_reads(content: str, found: str) -> None:
    told = verdict("math_answer", content, 94)
    assert (told.ok, told.reason, told.found) == (True, "right", found)


@pytest.mark.parametrize(
    ("found", "reference", "right"),
    [
        ("1,000", "1000.00", True),
        ("$18.50", 18.5, True),
        ("1.8 billion", 1_800_000_000, True),
        ("1.8 billion", 1.8, False),
        ("50\\%", "0.5", True),
        ("50%", "50", True),
        ("0.5%", "0.5", True),
        ("7/14", "0.5", True),
        ("\\frac{7}{14}", "0.5", True),
        ("-\\dfrac{7}{14}", "-0.5", True),
        ("6 and a half", "6", False),
        ("2 thirds", "2", False),
        ("2x + x", "3x", True),
        ("2x - x", "3x", False),
        ("-4", "4", False),
        ("1/" + "9" * 5000, "4", False),
        ("9" * 5000, "4", False),
        ("94", "Work.\n#### 94", True),
        ("94", "12+82=94.\nA: 94", True),
        ("9", "94", False),
        ("10+John's age", "50", False),
        ("3.1416", "3.14159", False),
    ],
)
def test_math_answer_compares(found: str, reference: object, right: bool) -> None:
    assert verdict("math_answer", f"\\boxed{{{found}}}", reference).ok is right


def test_math_answer_knows_no_answer() -> None:
    assert verdict("math_answer", "I cannot say.", 94).reason == "no_answer"
    assert verdict("math_answer", "<think>It is \\boxed{94}", 94).reason == "no_answer"
    assert verdict("math_answer", "There are 94", 94, finish_reason="length").reason == "no_answer"
    assert verdict({"type": "math_answer", "forms": ["boxed"]}, "#### 94", 94).reason == "no_answer"
    assert verdict({"type": "math_answer", "tolerance": 1e-4}, "\\boxed{3.1416}", 3.14159).ok


def test_math_answer_that_never_ends_is_stopped() -> None:
    slow = "\\sum_{n=1}^{10^9} n^n"
    warm = verifier("math_answer").verify([candidate("\\boxed{2x}", "x + x")])
    assert warm[0].ok
    judge = verifier({"type": "math_answer", "timeout": 1.0})
    told = judge.verify([candidate(f"\\boxed{{{slow}}}", "3"), candidate("\\boxed{12}", "12.0")])
    assert [each.reason for each in told] == ["timeout", "right"]


def test_a_million_characters_end_in_a_reason() -> None:
    judge = verifier({"type": "math_answer", "timeout": 0.5})
    told = judge.verify([candidate(f"\\boxed{{{text * 1_000_000}}}", "4") for text in ("9", "x+")])
    assert {each.reason for each in told} <= {"timeout", "unreadable", "wrong"}


@pytest.mark.parametrize("reference", [None, True, ["94"], ""])
def test_math_answer_refuses_what_is_no_reference(reference: object) -> None:
    with pytest.raises(DataError):
        verdict("math_answer", "\\boxed{x}", reference)


@pytest.mark.parametrize(
    "content",
    [
        "The answer is (B).",
        "The answer is B",
        "**Answer: B**",
        "the correct answer is option B: a cat",
        "\\boxed{B}",
        "\\boxed{\\text{B}}",
        "\\boxed{\\text{(B) a cat}}",
        "答案是B。",
        "答案：B",
        "故选 B",
        "正确选项是B",
        "So I choose option B.",
        "B is correct.",
        "B",
        "(B)",
        "B. a cat",
        "The answer is (A).\nNo, a dog barks. The answer is (B).",
        "<think>The answer is (A).</think>The answer is (B).",
    ],
)
def test_multiple_choice_reads(content: str) -> None:
    told = verdict("multiple_choice", content, "B")
    assert told.ok
    assert told.found == "B"
    assert verdict("multiple_choice", content, "A").reason == "wrong"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("A cat is an animal.", "no_answer"),
        ("The answer is an animal.", "no_answer"),
        ("The answer is I think a cat.", "no_answer"),
        ("The answer is (A) or (B).", "ambiguous"),
        ("<think>The answer is (B).", "no_answer"),
        ("The answer is (K).", "no_answer"),
    ],
)
def test_multiple_choice_does_not_guess(content: str, reason: str) -> None:
    assert verdict("multiple_choice", content, "B").reason == reason


def test_multiple_choice_numbers() -> None:
    assert verdict({"type": "multiple_choice", "first": 0}, "The answer is (C)", 2).ok
    with pytest.raises(DataError, match="first: 0"):
        verdict("multiple_choice", "The answer is (C)", 2)
    with pytest.raises(DataError):
        verdict({"type": "multiple_choice", "letters": "ABCD"}, "The answer is (C)", "E")


def test_exact() -> None:
    assert verdict("exact", "  new   York. ", "New York").ok
    assert verdict("exact", "It lies east.\n#### ＮＥＷ york", ["Boston", "New York"]).ok
    assert not verdict({"type": "exact", "fold": False}, "new york", "New York").ok
    assert not verdict({"type": "exact", "whole": True}, "So: \\boxed{York}", "York").ok
    assert verdict("exact", "<think>York", "York").reason == "no_answer"


def test_regex() -> None:
    group = {"type": "regex", "pattern": r"Result: (\w+)"}
    assert verdict(group, "Result: a. Result: b", "b").ok
    assert verdict(group, "Result: a", "b").reason == "wrong"
    assert verdict(group, "none", "b").reason == "no_answer"
    assert verdict({"type": "regex", "pattern": r"^\d{4}$"}, "1999").ok
    assert verdict("regex", "the year 1999", r"\b1999\b").ok
    with pytest.raises(DataError, match="no regular expression"):
        verdict("regex", "x", "(")


def test_regex_that_never_ends_is_stopped() -> None:
    endless = {"type": "regex", "pattern": r"(a+)+$", "timeout": 0.3}
    told = verifier(endless).verify([candidate("a" * 60 + "!", "x"), candidate("aaa", "aaa")])
    assert [each.reason for each in told] == ["timeout", "right"]


@pytest.mark.parametrize(
    "content",
    [
        "<answer>" + " " * 3000,
        "\\boxed{5" + " " * 20_000 + "@}",
        "\\boxed{" * 20_000,
        "\\boxed{$" + " " * 20_000 + "@}",
        "9" * 1_000_000,
        "#### " + "9" * 1_000_000,
    ],
)
def test_no_text_takes_for_ever(content: str) -> None:
    began = time.process_time()
    found = final_value(content)
    assert number_of(found.text if found else "") is None
    assert time.process_time() - began < 2


def test_equal_fractions_are_one_vote() -> None:
    told = {verifier("math_answer").final(candidate(f"\\boxed{{{text}}}")) for text in ("\\frac{1}{2}", "1/2", "0.5")}
    assert told == {"1/2"}


def test_signs_alone_are_compared_as_they_are() -> None:
    assert [verdict("exact", text, "!").ok for text in ("!", ".", "?")] == [True, False, False]


def test_open_fences_are_read_in_one_look() -> None:
    began = time.process_time()
    assert fenced(("```" + " " * 4000 + "x ") * 20, [""]) == []
    assert time.process_time() - began < 2
