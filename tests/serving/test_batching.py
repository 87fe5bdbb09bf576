from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from limbeck.serving.batching import Limits, choose


@dataclass(frozen=True, eq=False)
class Row:
    length: int
    group: Hashable = None


def lengths(rows: list[Row]) -> list[int]:
    return [row.length for row in rows]


@given(
    st.lists(st.tuples(st.integers(1, 64), st.integers(0, 1)), min_size=1, max_size=40),
    st.integers(64, 512),
    st.integers(1, 16),
    st.floats(0, 200),
)
def test_a_batch_holds_the_oldest_keeps_its_budget_and_one_group(
    shapes: list[tuple[int, int]], tokens: int, rows: int, spare: float
) -> None:
    waiting = [Row(length, group) for length, group in shapes]
    batch = choose(waiting, Limits(max_batch_tokens=tokens, max_batch_rows=rows), spare)
    assert waiting[0] in batch
    assert len(batch) * max(lengths(batch)) <= tokens
    assert len(batch) <= rows
    assert {row.group for row in batch} == {waiting[0].group}
    assert len({id(row) for row in batch}) == len(batch)


@given(st.lists(st.integers(1, 64), min_size=1, max_size=40), st.integers(64, 512))
def test_the_oldest_of_every_round_goes_so_that_all_go(shapes: list[int], tokens: int) -> None:
    waiting, rounds = [Row(length) for length in shapes], 0
    while waiting:
        batch = choose(waiting, Limits(max_batch_tokens=tokens), 8)
        waiting = [row for row in waiting if row not in batch]
        rounds += 1
    assert rounds <= len(shapes)


def test_rows_of_like_length_go_together_and_a_long_one_is_left_for_its_own_batch() -> None:
    waiting = [Row(10), Row(500), Row(12), Row(9), Row(480)]
    assert lengths(choose(waiting, Limits(), spare=20)) == [9, 10, 12]
    assert lengths(choose(waiting[1:2] + waiting[4:], Limits(), spare=20)) == [480, 500]


def test_where_a_batch_costs_much_beyond_its_tokens_padding_is_worth_it() -> None:
    assert lengths(choose([Row(10), Row(500)], Limits(), spare=1000)) == [10, 500]


def test_among_equals_the_older_ones_go_first() -> None:
    waiting = [Row(8) for _ in range(10)]
    assert choose(waiting, Limits(max_batch_rows=4), 64) == waiting[:4]


def test_a_row_above_the_budget_goes_alone() -> None:
    assert lengths(choose([Row(900), Row(900)], Limits(max_batch_tokens=512), 64)) == [900]
