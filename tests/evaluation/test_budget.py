"""The recipe's budget: what is crossed is named, and what was not measured is not passed."""

from __future__ import annotations

from typing import Any

import pytest

from limbeck.core.errors import BudgetError
from limbeck.core.recipe import Limits, Recipe
from limbeck.evaluation.budget import SCORES, refuse_beyond
from tests.core.recipes import recipe

FOUND = [
    {"model": "student", "name": "bytes_on_disk", "value": 1000},
    {"model": "student", "name": "latency_p50", "value": 2.5},
    {"model": "teacher", "name": "latency_p95", "value": 1.0},
]


def test_a_student_within_its_budget_passes() -> None:
    refuse_beyond(None, FOUND)
    refuse_beyond(Limits(bytes=1000, latency_p50=2.5), FOUND)


def test_every_limit_that_is_crossed_is_named() -> None:
    with pytest.raises(BudgetError) as error:
        refuse_beyond(Limits(bytes=999, latency_p50=2, latency_p95=9), FOUND)
    assert error.value.got == "bytes 1000, latency_p50 2.5, latency_p95 not measured"
    assert error.value.allowed == "bytes 999, latency_p50 2, latency_p95 9"


def test_a_compressed_student_is_the_one_that_is_paid_for() -> None:
    small = [{"model": "compressed", "name": "bytes_on_disk", "value": 300}]
    refuse_beyond(Limits(bytes=300), [*FOUND, *small])
    with pytest.raises(BudgetError, match="the compressed student is beyond") as error:
        refuse_beyond(Limits(bytes=299, latency_p50=9), [*FOUND, *small])
    assert error.value.got == "bytes 300, latency_p50 not measured"


def test_every_limit_has_its_score() -> None:
    assert SCORES.keys() == Limits.model_fields.keys()


def test_a_price_needs_an_hours_price() -> None:
    given: dict[str, Any] = {**recipe(), "budget": {"price": 1.0}}
    with pytest.raises(ValueError, match="price_per_hour"):
        Recipe.model_validate(given)
    priced = {**given, "evaluate": {"speed": {"price_per_hour": 2.0}}}
    assert Recipe.model_validate(priced).budget == Limits(price=1.0)
