"""Workers are killed at their deadline, replaced, and leave nothing behind."""

from __future__ import annotations

import os
import signal
import time

import pytest

from limbeck.verification.workers import Workers, workers


def test_results_stay_in_order_past_those_that_fail() -> None:
    crew = Workers("regex", 2)
    try:
        endless = {"pattern": "(a+)+$", "text": "a" * 60 + "!"}
        tasks = [{"pattern": "b", "text": "ab"}, endless, {"pattern": "(", "text": ""}, {"pattern": "c", "text": "c"}]
        start = time.monotonic()
        found = crew.map(tasks, timeout=0.5)
        assert time.monotonic() - start < 20
        assert [each.failure for each in found] == [None, "timeout", "error", None]
        assert found[0].value["text"] == "b"
        assert found[3].value["text"] == "c"
    finally:
        crew.close()


def test_a_worker_that_dies_is_replaced() -> None:
    crew = Workers("regex", 1)
    try:
        assert crew.map([{"pattern": "b", "text": "b"}], 5)[0].failure is None
        process = crew.workers[0].process
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        first, second = crew.map([{"pattern": "b", "text": "b"}, {"pattern": "b", "text": "b"}], 5)
        assert first.failure == "crashed"
        assert second.failure is None
    finally:
        crew.close()
    assert crew.workers == []


def test_closing_ends_the_processes() -> None:
    crew = Workers("regex", 1)
    crew.map([{"pattern": "b", "text": "b"}], 5)
    number = crew.workers[0].process.pid
    crew.close()
    with pytest.raises(ProcessLookupError):
        os.kill(number, 0)


def test_long_answers_come_whole() -> None:
    texts = ["long " * n for n in (13_000, 15_501, 60_000)]
    found = workers("regex", 1).map([{"pattern": "(?s).+", "text": text} for text in texts], 20)
    assert [each.value["text"] for each in found] == texts
