"""The engine under arrival orders, overload, cancelled calls, poisoned rows and late ones."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.serving.batching import Limits
from limbeck.serving.engine import Engine, Ran
from limbeck.serving.errors import Cancelled, Draining, Expired, Failed, Overloaded, TooLarge

POISON = "poison"


class Model:
    """Answers each item with a stamp of itself; fails on every batch that holds the poison."""

    def __init__(self) -> None:
        self.batches: list[list[Any]] = []
        self.open = threading.Event()
        self.open.set()
        self.entered = threading.Event()

    def __call__(self, items: Sequence[Any]) -> list[Any]:
        self.batches.append(list(items))
        self.entered.set()
        assert self.open.wait(10)
        if any(POISON in str(item) for item in items):
            raise ValueError("a poisoned row")
        return [("answer", item) for item in items]


@contextmanager
def engine(model: Any, workers: int = 1, **limits: Any) -> Iterator[Engine[Any, Any]]:
    made: Engine[Any, Any] = Engine([model] * workers, Limits(**limits))
    try:
        yield made
    finally:
        if isinstance(model, Model):
            model.open.set()
        made.drain(5)


@contextmanager
def held(model: Model, made: Engine[Any, Any]) -> Iterator[None]:
    """While the model computes one row, all others must wait."""
    model.open.clear()
    made.submit(["hold"], [1])
    assert model.entered.wait(5)
    yield
    model.open.set()


requests = st.lists(
    st.tuples(st.lists(st.integers(1, 64), min_size=1, max_size=4), st.sampled_from(["good", "good", "good", POISON])),
    min_size=1,
    max_size=30,
)


@settings(deadline=None, max_examples=60)
@given(requests, st.integers(1, 3), st.integers(64, 512), st.booleans())
def test_every_caller_gets_its_own_answer_and_only_poisoned_ones_fail(
    asked: list[tuple[list[int], str]], workers: int, tokens: int, at_once: bool
) -> None:
    model = Model()
    with engine(model, workers, max_batch_tokens=tokens) as made:
        model.open.clear() if at_once else None
        tickets = []
        for number, (lengths, kind) in enumerate(asked):
            items = [(number, place, kind) for place in range(len(lengths))]
            tickets.append((items, kind, made.submit(items, lengths)))
        model.open.set()
        for items, kind, ticket in tickets:
            if kind == POISON:
                with pytest.raises(Failed):
                    ticket.future.result(5)
            else:
                assert ticket.future.result(5) == [("answer", item) for item in items]
    assert not made.busy
    assert made.waiting_tokens == 0


def test_callers_in_threads_never_get_anothers_answer() -> None:
    rng = random.Random(0)
    wrong: list[Any] = []
    with engine(Model(), 2, max_batch_tokens=128) as made:

        def caller(name: int) -> None:
            for turn in range(40):
                items = [(name, turn, place) for place in range(rng.randint(1, 3))]
                got = made.submit(items, [rng.randint(1, 64) for _ in items]).future.result(10)
                wrong.extend([] if got == [("answer", item) for item in items] else [(items, got)])

        threads = [threading.Thread(target=caller, args=(name,)) for name in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert not any(thread.is_alive() for thread in threads)
    assert wrong == []


def test_what_waited_together_is_computed_together() -> None:
    model = Model()
    with engine(model) as made, held(model, made):
        tickets = [made.submit([i], [8]) for i in range(10)]
    for ticket in tickets:
        ticket.future.result(5)
    assert [len(batch) for batch in model.batches] == [1, 10]


def test_an_idle_engine_computes_at_once_even_where_batches_may_wait_long() -> None:
    with engine(Model(), max_wait=0.2) as made:
        took = []
        for _ in range(3):
            began = time.monotonic()
            made.submit(["x"], [8]).future.result(5)
            took.append(time.monotonic() - began)
            time.sleep(0.25)
    assert min(took) < 0.1


def test_callers_that_come_back_together_are_waited_for() -> None:
    model = Model()
    with engine(model, max_wait=0.5) as made:
        with held(model, made):
            tickets = [made.submit([i], [8]) for i in range(4)]
        for ticket in tickets:
            ticket.future.result(5)
        again = []
        for i in range(4):
            again.append(made.submit([10 + i], [8]))
            time.sleep(0.02)
        for ticket in again:
            ticket.future.result(5)
    assert [len(batch) for batch in model.batches] == [1, 4, 4]


def test_a_full_queue_refuses_and_says_when_to_come_back() -> None:
    model = Model()
    with engine(model, max_queue=4, max_queue_tokens=100) as made, held(model, made):
        tickets = [made.submit([i], [10]) for i in range(3)]
        with pytest.raises(Overloaded) as refused:
            made.submit(["a", "b"], [10, 10])
        assert refused.value.retry_after >= 1
        with pytest.raises(Overloaded):
            made.submit(["a"], [80])  # tokens
        assert made.waiting == 3  # a request is taken whole or not at all
        with pytest.raises(TooLarge):
            made.submit(list("abcde"), [1] * 5)  # it would never fit
    assert [ticket.future.result(5) for ticket in tickets] == [[("answer", i)] for i in range(3)]


def test_a_row_above_the_budget_is_refused() -> None:
    with engine(Model(), max_batch_tokens=64) as made, pytest.raises(TooLarge, match="65 tokens"):
        made.submit(["a"], [65])


def test_cancelled_rows_are_not_computed() -> None:
    model = Model()
    with engine(model) as made:
        with held(model, made):
            gone, stays = made.submit(["gone"] * 3, [8] * 3), made.submit(["stays"], [8])
            gone.cancel()
            assert made.waiting == 1
        assert stays.future.result(5) == [("answer", "stays")]
        with pytest.raises(Cancelled):
            gone.future.result(0)
    assert "gone" not in str(model.batches)


def test_a_row_cancelled_while_it_is_computed_harms_nobody() -> None:
    model = Model()
    with engine(model) as made:
        with held(model, made):
            gone = made.submit(["gone"], [8])
            stays = made.submit(["stays"], [8])
        gone.cancel()
        assert stays.future.result(5) == [("answer", "stays")]


def test_late_rows_are_dropped_before_they_are_computed() -> None:
    model = Model()
    with engine(model) as made:
        with held(model, made):
            late, in_time = made.submit(["late"], [8], deadline=0.01), made.submit(["in time"], [8])
            time.sleep(0.05)
        with pytest.raises(Expired):
            late.future.result(5)
        assert in_time.future.result(5) == [("answer", "in time")]
    assert "late" not in str(model.batches)


def test_what_would_come_too_late_is_refused_at_the_door() -> None:
    model = Model()
    with engine(model) as made:
        made.measured([(100, 1.0), (200, 2.0)])  # 100 tokens a second
        with held(model, made):
            made.submit(["a"], [400])
            with pytest.raises(Overloaded, match="after the deadline") as refused:
                made.submit(["b"], [400], deadline=5)
            assert refused.value.retry_after == 4


def test_an_idle_engine_takes_what_it_takes_for_too_slow() -> None:
    with engine(Model()) as made:
        made.measured([(100, 1.0), (200, 2.0)])  # it was slow once, and only by computing learns that it is no more
        assert made.submit(["a"], [400], deadline=1).future.result(5) == [("answer", "a")]


def test_groups_never_share_a_batch() -> None:
    model = Model()
    with engine(model) as made:
        with held(model, made):
            tickets = [made.submit([i % 2], [8], groups=[i % 2]) for i in range(8)]
        for ticket in tickets:
            ticket.future.result(5)
    assert sorted(map(sorted, model.batches[1:])) == [[0] * 4, [1] * 4]


def test_draining_loses_nothing_and_takes_nothing() -> None:
    model = Model()
    made: Engine[Any, Any] = Engine([model], Limits(max_batch_rows=4))
    with held(model, made):
        tickets = [made.submit([i], [8]) for i in range(64)]
        drained = threading.Thread(target=lambda: ok.append(made.drain(10)))
        ok: list[bool] = []
        drained.start()
        while made.alive:
            time.sleep(0.001)
        with pytest.raises(Draining):
            made.submit(["late"], [8])
    drained.join(10)
    assert ok == [True]
    assert [ticket.future.result(0) for ticket in tickets] == [[("answer", i)] for i in range(64)]


def test_what_is_not_done_when_draining_ends_is_told_so() -> None:
    model = Model()
    made: Engine[Any, Any] = Engine([model], Limits())
    with held(model, made):
        ticket = made.submit(["x"], [8])
        assert made.drain(0.05) is False
        with pytest.raises(Draining):
            ticket.future.result(0)


def test_a_model_that_loses_a_row_answers_nobody() -> None:
    def loses(items: Sequence[Any]) -> list[Any]:
        return list(items)[:-1] if len(items) > 1 else list(items)

    gate = Model()

    def run(items: Sequence[Any]) -> list[Any]:
        gate(items)
        return loses(items)

    made: Engine[Any, Any] = Engine([run], Limits())
    with held(gate, made):
        tickets = [made.submit([i], [8]) for i in range(3)]
    assert [ticket.future.result(5) for ticket in tickets] == [[0], [1], [2]]  # singly, each its own
    made.drain(5)


def test_batches_are_told_of() -> None:
    model, told = Model(), list[Ran]()
    made: Engine[Any, Any] = Engine([model], Limits(), observe=told.append)
    with held(model, made):
        tickets = [made.submit([name], [length]) for name, length in (("a", 5), ("b", 8), (POISON, 6))]
    with pytest.raises(Failed):
        tickets[2].future.result(5)
    made.drain(5)
    assert [(ran.rows, ran.tokens, ran.padded, ran.failed) for ran in told] == [(1, 1, 1, 0), (3, 19, 24, 1)]


def test_warm_up_says_what_padding_is_worth() -> None:
    model = Model()
    with engine(model) as made:
        made.measured([(n, (300 + n) / 1000) for n in (10, 100, 1000)])
        with held(model, made):
            tickets = [made.submit([n], [n]) for n in (10, 300, 480)]
        for ticket in tickets:
            ticket.future.result(5)
    assert model.batches[1:] == [[10, 300], [480]]
