"""Steps of worked answers: where they are cut, what they conclude, what they use."""

# ruff: noqa: RUF001 - signs of mathematics and of Chinese text are meant
from __future__ import annotations

import gzip
import json
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.data.steps import canonical, joined, steps_of
from limbeck.data.word_problems import problems

DATA = Path(os.environ.get("LIMBECK_DATA", Path(__file__).parents[3] / "shared" / "data"))


def cut(text: str, question: str = "") -> list[tuple[str, str | None, tuple[int, ...]]]:
    return [(step.text, step.conclusion, step.uses) for step in steps_of(text, question)]


def rows(name: str) -> list[dict[str, Any]]:
    if not (DATA / name).exists():
        pytest.skip(f"there is no {name} where LIMBECK_DATA says")
    with gzip.open(DATA / name, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def test_worked_arithmetic() -> None:
    text = "64+5=69. 69+25=94. #### 94"
    assert cut(text) == [("64+5=69. ", "69", ()), ("69+25=94. ", "94", (0,)), ("#### 94", "94", (1,))]
    first, second, last = steps_of(text, "Mia has 64 apples. Mia buys 5 more. Mia finds 25 more.")
    assert (first.given, second.given, last.given) == (("5", "64"), ("25",), ())
    assert [text[slice(*step.at)] for step in (first, second, last) if step.at] == ["69", "94", "94"]
    assert [first.answers, last.answers] == [False, True]


def test_annotated_and_plain_solutions() -> None:
    text = "She sold 48/2 = <<48/2=24>>24 in May.\nNo more.\nShe sold 48+24 = $<<48+24=72>>72 then.\n#### 72"
    assert [c for _, c, _ in cut(text)] == ["24", "72", "72"]
    assert [u for *_, u in cut(text)] == [(), (0,), (1,)]
    told = steps_of(text)[0]
    assert told.at is not None
    assert text[told.at[0] - 2 : told.at[1] + 3] == ">>24 in"  # the value that a reader sees, not the annotation's
    assert [(c, u) for _, c, u in cut(re.sub("<<.*?>>", "", text))] == [(c, u) for _, c, u in cut(text)]


@pytest.mark.parametrize(
    ("text", "texts"),
    [
        ("1. Take 2+3=5. Then 5*2=10.\n\n2. So 10-1=9\n", ["1. Take 2+3=5. Then 5*2=10.\n\n", "2. So 10-1=9\n"]),
        ("Step 1: 2+3=5.\nStep 2: 5+1=6.\n\nThe answer is 6.", ["Step 1: 2+3=5.\n", "Step 2: 5+1=6.\n\n", "The "]),
        ("**Step 1:** add\n**Step 2:** stop", ["**Step 1:** add\n", "**Step 2:** stop"]),
        ("第1步 3+5=8。再加1。第2步", ["第1步 3+5=8。", "再加1。第2步"]),  # a list counts lines
        ("3+5=8。8-2=6！答案是6。", ["3+5=8。", "8-2=6！", "答案是6。"]),
        ("One thought.\nMore of it.\n\nAnother.", ["One thought.\nMore of it.\n\n", "Another."]),
        ("<think>\nHm, 2+2=4.\n\nYes.\n</think>\n\nFour.", ["<think>\nHm, 2+2=4.\n\n", "Yes.\n</think>\n\n", "Four."]),
        ("3. is no list\n4. of items", ["3. is no list\n4. of items"]),
        ("", []),
        (" \n", [" \n"]),
    ],
)
def test_where_texts_are_cut(text: str, texts: list[str]) -> None:
    found = [step.text for step in steps_of(text)]
    assert "".join(found) == text
    assert len(found) == len(texts)
    assert all(one.startswith(other) for one, other in zip(found, texts, strict=True))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a = 3 + 4 = 7", "7"),
        ("so x = 1,200.50 dollars.", "1200.5"),
        ("v = 3.0 × 10^8 m/s", "300000000"),
        ("0.2*50 = 10", "10"),
        ("x = 0.2*50", None),
        ("x = 2y + 3", None),
        ("y = 16 - 3 - x", None),
        ("x <= 5 and x != 6", None),
        ("t ≈ -0.5 s", "-0.5"),
        ("m = $5$", "5"),
        ("so a = 12 (see above)", "12"),
        ("a = 2(b + 3)", None),
        ("3加5等于8", "8"),
        ("So there are 12 left.", "12"),
        ("There are 12 left.", None),
        (r"Hence \boxed{42}.", "42"),
        ("The final answer is: **(C)**", "C"),
        ("**Answer:** 7", "7"),
        ("The answer is about trees", None),
        ("A: 18", "18"),
        ("所以一共12个", "12"),
    ],
)
def test_conclusions(text: str, value: str | None) -> None:
    (step,) = steps_of(text)
    assert step.conclusion == value
    assert (step.at is None) == (value is None)
    if step.at is not None and value is not None:
        assert canonical(text[slice(*step.at)]) == value


def test_the_latest_of_equal_conclusions_is_used() -> None:
    assert [u for *_, u in cut("1+1=2. 4-2=2. 2*2=4. 2+2=4. 4*3=12.")] == [(), (0,), (1,), (1,), (3,)]


def test_steps_without_a_conclusion_join_the_next() -> None:
    text = "Let me see.\n\n2+3=5.\n\nWell.\n\n5*2=10.\n\nDone, I think."
    steps = joined(steps_of(text))
    assert [step.text for step in steps] == ["Let me see.\n\n2+3=5.\n\n", "Well.\n\n5*2=10.\n\nDone, I think."]
    assert [(step.conclusion, step.uses) for step in steps] == [("5", ()), ("10", (0,))]
    (only,) = joined(steps_of("Nothing\n\nis said"))
    assert (only.text, only.conclusion) == ("Nothing\n\nis said", None)
    assert joined([]) == []


def test_steps_beyond_the_most_join_the_last() -> None:
    steps = joined(steps_of("1+1=2. 2+5=7. 7+1=8. 8+2=10. #### 10"), 3)
    assert [step.text for step in steps] == ["1+1=2. ", "2+5=7. ", "7+1=8. 8+2=10. #### 10"]
    assert [(step.conclusion, step.uses) for step in steps] == [("2", ()), ("7", (0,)), ("10", (0, 1))]


def test_every_operation_of_our_problems_is_a_step_that_uses_the_one_before() -> None:
    for row in problems("test", 100, seed=0, min_steps=1, max_steps=4, maximum=99):
        steps = steps_of(row["answer"], row["prompt"])
        assert len(steps) == row["steps"] + 1
        assert all(i - 1 in step.uses for i, step in enumerate(steps) if i)
        assert steps[-1].conclusion == str(row["result"])


@settings(deadline=None, max_examples=300)
@given(st.lists(st.sampled_from([*"12. =+\n\n。x(<>", "1. ", "Step 2: ", "</think>", "#### 3", "=5. ", "so 7"])))
def test_steps_tile_any_text(pieces: list[str]) -> None:
    text = "".join(pieces)
    steps = steps_of(text)
    assert "".join(step.text for step in steps) == text
    assert all(text[step.start : step.end] == step.text for step in steps)
    assert all(use < i for i, step in enumerate(steps) for use in step.uses)
    assert all(step.at is None or step.start <= step.at[0] < step.at[1] <= step.end for step in steps)
    again = joined(steps, 2)
    assert "".join(step.text for step in again) == text
    assert len(again) <= 2


@pytest.mark.slow
def test_real_solutions() -> None:
    """Grade-school solutions: the annotated results are found, and nearly every answer has a chain."""
    annotated = lost = chains = 0
    found = rows("gsm8k/train.jsonl.gz")
    for row in found:
        text = row["answer"]
        steps = steps_of(text, row["question"])
        assert "".join(step.text for step in steps) == text
        assert steps[-1].conclusion == canonical(text.split("####")[1])
        results = {canonical(each) for each in re.findall(r"=\s*(-?[\d.,]+)>>", text)}
        annotated, lost = annotated + len(results), lost + len(results - {step.conclusion for step in steps})
        chains += any(step.uses for step in steps[:-1]) or len(steps) < 4
    assert lost / annotated < 0.001
    assert chains / len(found) > 0.9


@pytest.mark.slow
def test_real_traces() -> None:
    for row in rows("r1_traces_pcmb/traces.jsonl.gz"):
        text = f"<think>\n{row['reasoning']}\n</think>\n\n{row['answer_text']}"
        steps = steps_of(text, row["question"])
        assert "".join(step.text for step in steps) == text
        assert steps[-1].conclusion == row["answer_letter"]
        assert len(steps) >= 2


@pytest.mark.parametrize(
    "text", ["5" + " " * 20_000, "\n" * 20_000, "####" + " " * 20_000, "#### a" + " " * 20_000 + "b"]
)
def test_no_text_takes_for_ever(text: str) -> None:
    began = time.process_time()
    assert "".join(step.text for step in steps_of(text)) == text
    assert time.process_time() - began < 2
