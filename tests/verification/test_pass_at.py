"""pass@k: what drawing k of the answers by hand gives."""

from __future__ import annotations

from itertools import combinations

import pytest

from limbeck.core.errors import RecipeError
from limbeck.verification.pass_at import pass_at, tries
from limbeck.verification.select import Facts


def by_drawing(k: int, right: int, answers: int) -> float:
    """The share of all draws of k answers that hold a right one."""
    draws = list(combinations([True] * right + [False] * (answers - right), k))
    return sum(any(draw) for draw in draws) / len(draws)


def facts(right: int, answers: int) -> Facts:
    return Facts(answers, right, kept=right)


@pytest.mark.parametrize("k", [1, 2, 3, 8])
def test_it_is_the_share_of_draws_with_a_right_answer(k: int) -> None:
    for right in range(9):
        assert pass_at(k, [facts(right, 8)]) == pytest.approx(by_drawing(k, right, 8), abs=1e-12)


def test_prompts_count_the_same_however_many_answers_they_have() -> None:
    found = [facts(1, 2), facts(4, 4), facts(0, 6)]
    assert pass_at(1, found) == pytest.approx((0.5 + 1 + 0) / 3)


def test_prompts_with_too_few_answers_are_left_out() -> None:
    assert pass_at(3, [facts(1, 3), facts(2, 2)]) == 1
    assert pass_at(5, [facts(1, 3)]) is None
    assert pass_at(1, []) is None


def test_many_answers_are_no_trouble() -> None:
    assert pass_at(1000, [facts(1, 100_000)]) == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("samples", "wanted"), [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (8, [1, 2, 4, 8]), (20, [1, 2, 4, 8, 16, 20])]
)
def test_it_is_told_for_powers_of_two_and_for_all_samples(samples: int, wanted: list[int]) -> None:
    assert tries(samples) == wanted


def test_no_answer_cannot_be_right() -> None:
    with pytest.raises(RecipeError, match="at least one answer"):
        pass_at(0, [facts(1, 1)])
