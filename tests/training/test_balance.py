"""What terms weigh under a balance."""

from __future__ import annotations

from typing import Any

import pytest

from limbeck.core.parts import build
from limbeck.core.recipe import Balance
from limbeck.training.balance import weights_now
from limbeck.training.checkpoint import Progress

MATCH = {"a": "b"}
SIZES = {"cross_entropy": 4.0, "kl": 0.5, "hidden": 8.0, "fitnets": 20.0}


def terms(*more: dict[str, Any]) -> list[Any]:
    return [build("objective", each) for each in more]


def test_terms_are_made_equal_then_groups_weighed() -> None:
    """With weight times size, the first batch's shares: 3 : 2 for the groups, the own weights within each."""
    given = terms(
        {"type": "cross_entropy", "weight": 1},
        {"type": "kl", "weight": 3},
        {"type": "hidden", "match": MATCH, "weight": 5},
        {"type": "fitnets", "match": MATCH, "weight": 5},
    )
    found = weights_now(given, Balance(output=3, intermediate=2), 0.0, Progress(scales=SIZES))
    shares = [weight * size for weight, size in zip(found, SIZES.values(), strict=True)]
    assert shares == pytest.approx([0.6 / 4, 0.6 * 3 / 4, 0.4 / 2, 0.4 / 2])


def test_a_schedule_keeps_its_shape() -> None:
    falling = {"type": "linear", "start": 0.8, "end": 0.2}
    given = terms({"type": "cross_entropy"}, {"type": "hidden", "match": MATCH, "weight": falling})
    at = [weights_now(given, Balance(), done, Progress(scales=SIZES))[1] for done in (0.0, 0.5, 1.0)]
    assert [each / at[0] for each in at] == pytest.approx([1, 0.5 / 0.8, 0.2 / 0.8])
    assert at[0] * SIZES["hidden"] == pytest.approx(0.4)


def test_a_group_that_is_alone_has_all_of_it() -> None:
    given = terms({"type": "kl", "weight": 7})
    assert weights_now(given, Balance(), 0.0, Progress(scales=SIZES)) == pytest.approx([1 / SIZES["kl"]])


def test_without_a_balance_weights_are_as_written() -> None:
    given = terms({"type": "kl", "weight": 7}, {"type": "hidden", "match": MATCH, "weight": 0.1})
    assert weights_now(given, None, 0.3, Progress()) == [7, 0.1]
