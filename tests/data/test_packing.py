"""Packing: nothing lost, nothing overlaps, and the same fill as placing texts one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.core.errors import DataError
from limbeck.data.packing import pack


def one_by_one(lengths: list[int], capacity: int) -> list[int]:
    """Rooms left after best fit, longest first, the plain way."""
    rooms: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [i for i, room in enumerate(rooms) if room >= length]
        if not fitting:
            rooms.append(capacity)
            fitting = [len(rooms) - 1]
        rooms[min(fitting, key=lambda i: rooms[i])] -= length
    return sorted(rooms)


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 60).flatmap(lambda c: st.tuples(st.just(c), st.lists(st.integers(1, c), max_size=60))))
def test_it_is_best_fit_decreasing(case: tuple[int, list[int]]) -> None:
    capacity, lengths = case
    found = pack(lengths, capacity)
    taken = np.zeros((found.rows, capacity), dtype=int)
    for row, start, length in zip(found.row, found.start, lengths, strict=True):
        assert start + length <= capacity
        taken[row, start : start + length] += 1
    assert taken.max(initial=0) <= 1
    assert all(row[: row.sum()].all() for row in taken)  # no holes
    assert sorted((capacity - taken.sum(1)).tolist()) == one_by_one(lengths, capacity)
    assert found.fill == pytest.approx(taken.mean() if lengths else 1.0)


def test_ragged_lengths_fill_their_rows() -> None:
    lengths = np.clip(np.random.default_rng(0).lognormal(6, 1, 100_000), 1, 4096).astype(np.int64)
    found = pack(lengths, 4096)
    assert found.fill > 0.997
    used = np.bincount(found.row, weights=lengths, minlength=found.rows)
    assert used.max() <= 4096
    assert used.min() > 0
    again = pack(lengths, 4096)
    assert (again.row == found.row).all()
    assert (again.start == found.start).all()


def test_rows_wider_than_16_bits() -> None:
    found = pack([70_000, 30_000, 69_999, 1], 100_000)
    assert found.rows == 2
    assert found.row[0] == found.row[1]
    assert found.row[2] == found.row[3]


@pytest.mark.parametrize("lengths", [[3, 9], [0, 3]])
def test_what_does_not_fit_is_refused(lengths: list[int]) -> None:
    with pytest.raises(DataError, match="does not fit into a row"):
        pack(lengths, 8)
