from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from limbeck.serving.batching import Limits, choose, turn


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
    batch = choose(waiting, waiting[0], Limits(max_batch_tokens=tokens, max_batch_rows=rows), spare)
    assert waiting[0] in batch
    assert len(batch) * max(lengths(batch)) <= tokens
    assert len(batch) <= rows
    assert {row.group for row in batch} == {waiting[0].group}
    assert len({id(row) for row in batch}) == len(batch)


@given(st.lists(st.integers(1, 64), min_size=1, max_size=40), st.integers(64, 512))
def test_the_oldest_of_every_round_goes_so_that_all_go(shapes: list[int], tokens: int) -> None:
    waiting, rounds = [Row(length) for length in shapes], 0
    while waiting:
        batch = choose(waiting, waiting[0], Limits(max_batch_tokens=tokens), 8)
        waiting = [row for row in waiting if row not in batch]
        rounds += 1
    assert rounds <= len(shapes)


def test_rows_of_like_length_go_together_and_a_long_one_is_left_for_its_own_batch() -> None:
    waiting = [Row(10), Row(500), Row(12), Row(9), Row(480)]
    assert lengths(choose(waiting, waiting[0], Limits(), spare=20)) == [9, 10, 12]
    assert lengths(choose(waiting[1:2] + waiting[4:], waiting[1], Limits(), spare=20)) == [480, 500]


def test_where_a_batch_costs_much_beyond_its_tokens_padding_is_worth_it() -> None:
    some = [Row(10), Row(500)]
    assert lengths(choose(some, some[0], Limits(), spare=1000)) == [10, 500]


def test_among_equals_the_older_ones_go_first() -> None:
    waiting = [Row(8) for _ in range(10)]
    assert choose(waiting, waiting[0], Limits(max_batch_rows=4), 64) == waiting[:4]


def test_a_row_above_the_budget_goes_alone() -> None:
    some = [Row(900), Row(900)]
    assert lengths(choose(some, some[0], Limits(max_batch_tokens=512), 64)) == [900]


@dataclass(frozen=True, eq=False)
class Late(Row):
    since: float = 0.0
    deadline: float = 100.0


def test_who_has_waited_longest_for_its_cost_is_next() -> None:
    long, short, newer = Late(500, since=0.0), Late(10, since=1.0), Late(10, since=1.5)
    assert turn([long, short, newer], 1.1, spare=10) is short
    assert turn([long, newer], 1.501, spare=10) is long  # 0.001 s for 20 tokens against 1.5 s for 510
    assert turn([short, newer], 40, spare=10) is short


def test_who_has_used_half_of_its_time_goes_before_all_others() -> None:
    long, short = Late(4000, since=0.0, deadline=10.0), Late(1, since=0.0)
    assert turn([long, short], 4.9, spare=1) is short
    assert turn([long, short], 5.0, spare=1) is long
    hasty = Late(4000, since=3.0, deadline=6.0)
    assert turn([long, short, hasty], 5.0, spare=1) is hasty


@given(st.lists(st.tuples(st.integers(1, 512), st.floats(0, 1)), min_size=1, max_size=40))
def test_nobody_waits_for_ever_behind_new_short_rows(shapes: list[tuple[int, float]]) -> None:
    waiting = [Late(length, since=since) for length, since in sorted(shapes, key=lambda shape: shape[1])]
    now, oldest = 1.0, waiting[0]
    while oldest in waiting:
        waiting.remove(turn(waiting, now, spare=16))
        now += 0.1
        waiting.append(Late(1, since=now - 0.05))
        assert now < 55  # half of its time, and those that are pressed with it
