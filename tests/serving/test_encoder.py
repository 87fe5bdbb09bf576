"""Plain inputs of many requests, read together."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from limbeck.core.types import Sample
from limbeck.runtime.student import ServedStudent, load_student, task_in
from limbeck.serving.encoder import Encoder
from limbeck.serving.errors import BadRequest, TooLarge
from tests.serving.serving import make_text


class Counted(ServedStudent):
    """A student that notes how many rows it is given at a time, and waits at a gate."""

    def __init__(self, inner: ServedStudent):
        super().__init__(inner.card, inner.codec, inner.runner)
        self.turns: list[int] = []
        self.gate, self.entered = threading.Event(), threading.Event()
        self.gate.set()

    def encode(self, samples: Sequence[Sample]) -> list[Any]:
        self.turns.append(len(samples))
        self.entered.set()
        assert self.gate.wait(10)
        return super().encode(samples)


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> ServedStudent:
    return load_student(make_text(tmp_path_factory.mktemp("models") / "text"))


@pytest.fixture
def counted(student: ServedStudent) -> Counted:
    return Counted(student)


def encoder(student: ServedStudent) -> Encoder:
    return Encoder(student, task_in(student.card), "test")


TEXTS = [f"the {'word ' * (i % 6)}{i}" for i in range(12)]


def test_rows_that_are_read_together_are_as_those_read_alone(counted: Counted) -> None:
    asked: list[list[dict[str, Any]]] = [[{"text": text}] for text in TEXTS]
    asked.append([{"text": "one", "text_pair": "another"}, {"text": "three of them"}])
    made = encoder(counted)
    alone = [made.encode(fields) for fields in asked]
    del counted.turns[:]

    async def main() -> list[Any]:
        return await asyncio.gather(*(made.read(fields, 5) for fields in asked))

    found = asyncio.run(main())
    assert counted.turns == [14]
    assert [len(rows) for rows in found] == [1] * 12 + [2]
    for rows, right in zip(found, alone, strict=True):
        for row, other in zip(rows, right, strict=True):
            assert row.keys() == other.keys()
            for name in row:
                np.testing.assert_array_equal(row[name], other[name])


def test_who_sends_what_cannot_be_read_is_refused_alone(student: ServedStudent) -> None:
    made = encoder(student)

    async def main() -> list[Any]:
        asked = [made.read([{"text": text}], 5) for text in ("a", " ", "b", "\u00a0")]
        return await asyncio.gather(*asked, return_exceptions=True)

    first, blank, second, other = asyncio.run(main())
    assert len(first) == len(second) == 1
    assert isinstance(blank, BadRequest)
    assert isinstance(other, BadRequest)
    assert "input 0" in str(blank)


def test_a_turn_of_the_loop_is_short(counted: Counted) -> None:
    made = encoder(counted)

    async def main() -> None:
        await asyncio.gather(*(made.read([{"text": "a" * 1999}], 5) for _ in range(10)))

    asyncio.run(main())
    assert counted.turns == [5, 5]


def test_a_long_text_does_not_hold_the_loop(counted: Counted) -> None:
    made = encoder(counted)
    counted.gate.clear()

    async def main() -> float:
        loop = asyncio.get_running_loop()
        long = asyncio.ensure_future(made.read([{"text": "a " * 2000}], 10))
        await asyncio.to_thread(counted.entered.wait, 5)
        short = asyncio.ensure_future(made.read([{"text": "b"}], 10))
        began = loop.time()
        await asyncio.sleep(0.01)  # the thread has the tokenizer, and the loop goes on
        waited = loop.time() - began
        counted.gate.set()
        assert [len(rows) for rows in await asyncio.gather(long, short)] == [1, 1]
        return waited

    assert asyncio.run(main()) < 5


def test_what_takes_too_long_to_read_is_refused_at_once(student: ServedStudent) -> None:
    with pytest.raises(TooLarge, match="characters"):
        encoder(student).encode([{"text": "a" * 100_001}])
