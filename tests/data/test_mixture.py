"""Shares of parts in every step."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.core.schedules import Constant, Linear
from limbeck.data.mixture import draws, shares


@settings(max_examples=80, deadline=None)
@given(
    weights=st.lists(st.floats(0.01, 20), min_size=1, max_size=5),
    batch=st.integers(1, 64),
    seed=st.integers(0, 9),
)
def test_every_step_has_the_shares_to_one_sample(weights: list[float], batch: int, seed: int) -> None:
    shares_SP = shares({str(i): Constant(value=w) for i, w in enumerate(weights)}, 50)
    counts_SP = draws(shares_SP, batch, [seed])
    assert (counts_SP.sum(1) == batch).all()
    assert (np.abs(counts_SP - batch * shares_SP) < 1 + 1e-6).all()


@pytest.mark.parametrize("weights", [(20, 5, 1), (1, 2, 4, 8), (0.03, 0.9, 0.07)])
def test_over_a_stage_the_shares_are_met_to_a_few_samples(weights: tuple[float, ...]) -> None:
    shares_SP = shares({str(i): Constant(value=w) for i, w in enumerate(weights)}, 20_000)
    for batch in (7, 32):
        off_SP = np.cumsum(draws(shares_SP, batch, [0]) - batch * shares_SP, axis=0)
        assert np.abs(off_SP).max() < 4


def test_a_part_of_weight_zero_gives_nothing() -> None:
    weights = {"a": Constant(value=1), "b": Linear(start=0, end=1), "c": Constant(value=0)}
    counts_SP = draws(shares(weights, 11), 10, [0])
    assert not counts_SP[:, 2].any()
    assert counts_SP[0].tolist() == [10, 0, 0]
    assert counts_SP[-1].tolist() == [5, 5, 0]
