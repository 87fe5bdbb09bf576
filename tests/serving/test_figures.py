"""Figures of several replicas in one exposition."""

from __future__ import annotations

import time
from collections.abc import Mapping

import pytest

parser = pytest.importorskip("prometheus_client.parser")

from limbeck.serving.metrics import Metrics  # noqa: E402
from limbeck.serving.scale.figures import Board, SharedMetrics, merged  # noqa: E402


def told(text: bytes, name: str) -> dict[tuple[str, ...], float]:
    """A sample's values by its labels."""
    return {
        tuple(sorted(sample.labels.values())): sample.value
        for family in parser.text_string_to_metric_families(text.decode())
        for sample in family.samples
        if sample.name == name
    }


def asked(count: int) -> Metrics:
    made = Metrics()
    made.requests.labels("http", "/predict", "200").inc(count)
    made.seconds.labels("http", "/predict").observe(0.003)
    return made


def test_every_figure_says_whose_it_is() -> None:
    texts = {"a": asked(3).text().decode(), "b": asked(5).text().decode()}
    whole = merged(texts)
    assert told(whole, "limbeck_requests_total") == {
        ("/predict", "200", "a", "http"): 3,
        ("/predict", "200", "b", "http"): 5,
    }
    assert len(told(whole, "limbeck_request_seconds_bucket")) == 2 * len(
        told(texts["a"].encode(), "limbeck_request_seconds_bucket")
    )
    # One head for each family: Prometheus refuses a text with two.
    heads = [line for line in whole.decode().splitlines() if line.startswith("# TYPE")]
    assert len(heads) == len(set(heads)) > 5


def test_a_board_forgets_who_says_nothing_more() -> None:
    board = Board(keep=0.05)
    assert board.put("a", "1") == {"a": "1"}
    assert board.put("b", "2") == {"a": "1", "b": "2"}
    time.sleep(0.06)
    assert board.put("b", "3") == {"b": "3"}


def test_replicas_tell_each_others_figures_and_outlive_their_board() -> None:
    board, down = Board(), False

    def exchange(name: str, text: str) -> Mapping[str, str]:
        if down:
            raise ConnectionError("no board")
        return board.put(name, text)

    first, second = SharedMetrics("a", exchange, 0.01), SharedMetrics("b", exchange, 0.01)
    try:
        second.requests.labels("http", "/predict", "200").inc(7)
        end = time.monotonic() + 5
        while told(first.text(), "limbeck_requests_total") != {("/predict", "200", "b", "http"): 7}:
            assert time.monotonic() < end
            time.sleep(0.01)
        down = True
        time.sleep(0.03)
        first.requests.labels("http", "/predict", "200").inc()
        assert told(first.text(), "limbeck_requests_total") == {
            ("/predict", "200", "a", "http"): 1,
            ("/predict", "200", "b", "http"): 7,
        }
    finally:
        first.close()
        second.close()
