"""Generated word problems: true, disjoint by construction, the same everywhere."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.core.errors import DataError
from limbeck.data.sources.arithmetic import Arithmetic
from limbeck.data.word_problems import SPLITS, problems

RANGE: dict[str, Any] = {"min_steps": 1, "max_steps": 3, "maximum": 99}
STEP = re.compile(r"(\d+)([-+*])(\d+)=(\d+)\.")


def calculation(row: dict[str, Any]) -> str:
    """What is computed, whatever the story around it."""
    steps = STEP.findall(row["answer"])
    return steps[0][0] + "".join(operator + operand for _, operator, operand, _ in steps)


def test_no_calculation_is_in_two_splits_or_twice_in_one() -> None:
    seen = {split: [calculation(r) for r in problems(split, 3000, seed=0, **RANGE)] for split in SPLITS}
    for split, found in seen.items():
        assert max(Counter(found).values()) == 1, split
    train, validation, test = (set(seen[split]) for split in ("train", "validation", "test"))
    assert not train & validation
    assert not train & test
    assert not validation & test


def test_splits_are_disjoint_whatever_the_seed_and_the_settings() -> None:
    train = {calculation(r) for seed in range(3) for r in problems("train", 2000, seed=seed, **RANGE)}
    easy = {"min_steps": 1, "max_steps": 2, "maximum": 50}
    test = {calculation(r) for seed in (7, 8) for r in problems("test", 500, seed=seed, **easy)}
    assert not train & test


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), steps=st.integers(1, 5), maximum=st.integers(20, 200))
def test_every_step_is_true_and_fits_the_story(seed: int, steps: int, maximum: int) -> None:
    for row in problems("train", 20, seed=seed, min_steps=1, max_steps=steps, maximum=maximum):
        found = STEP.findall(row["answer"])
        assert " ".join(f"{a}{o}{b}={c}." for a, o, b, c in found) + f" #### {row['result']}" == row["answer"]
        assert len(found) == row["steps"] <= steps
        value = int(found[0][0])
        for before, operator, operand, after in found:
            assert int(before) == value
            value = {"+": value + int(operand), "-": value - int(operand), "*": value * int(operand)}[operator]
            assert value == int(after)
            assert 0 <= value <= maximum
        assert value == row["result"]
        told = [int(number) for number in re.findall(r"\d+", row["prompt"])]
        assert told == [int(found[0][0]), *(int(operand) for _, _, operand, _ in found)]


def test_the_same_problems_everywhere_and_fewer_are_the_beginning_of_more() -> None:
    rows = problems("test", 50, seed=0, **RANGE)
    assert problems("test", 10, seed=0, **RANGE) == rows[:10]
    digest = hashlib.sha256(repr(problems("test", 1000, seed=0, **RANGE)).encode()).hexdigest()
    assert digest[:16] == "8b8b508b292e9c15"  # of the generator as first measured; a change needs a new version


def test_asking_for_more_than_there_are_is_an_error() -> None:
    with pytest.raises(DataError, match="too few distinct arithmetic problems"):
        problems("test", 10_000, seed=0, min_steps=1, max_steps=1, maximum=5)


def test_the_source_has_all_splits_and_knows_its_settings() -> None:
    source = Arithmetic(train_size=30, validation_size=5, test_size=7)
    assert [len(source.load(split)) for split in ("train", "validation", "test")] == [30, 5, 7]
    assert all(source.has(split) for split in ("train", "validation", "test"))
    assert source.fingerprint() != Arithmetic(train_size=31, validation_size=5, test_size=7).fingerprint()
    with pytest.raises(ValueError, match="min_steps"):
        Arithmetic(min_steps=4, max_steps=3)
