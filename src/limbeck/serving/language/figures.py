"""What Prometheus is told of a language model, beside the requests."""

from __future__ import annotations

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from limbeck.serving.language.relay import Tally
from limbeck.serving.language.slots import Slots
from limbeck.serving.language.supervisor import Supervisor

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)


class Figures:
    """Counters of one model.

    Args:
        supervisor: of its engine.
        slots: its places.
    """

    def __init__(self, supervisor: Supervisor, slots: Slots):
        self._registry = registry = CollectorRegistry()
        self._first = Histogram(
            "limbeck_language_first_seconds", "To an answer's first piece.", buckets=_SECONDS, registry=registry
        )
        self._whole = Histogram("limbeck_language_seconds", "To an answer's end.", buckets=_SECONDS, registry=registry)
        self._tokens = Counter("limbeck_language_tokens", "Of finished answers.", ("kind",), registry=registry)
        for name, text, read in (
            ("queue_requests", "Requests that wait.", lambda: slots.waiting),
            ("running_requests", "Answers that are written.", lambda: slots.running),
            ("engine_ready", "Whether the engine can be asked.", lambda: supervisor.ready),
            ("engine_deaths", "Ends of the engine by itself.", lambda: supervisor.starts),
        ):
            Gauge(f"limbeck_language_{name}", text, registry=registry).set_function(read)

    def tell(self, tally: Tally) -> None:
        """An answer has ended."""
        self._whole.observe(time.monotonic() - tally.began)
        if tally.first is not None:
            self._first.observe(tally.first)
        if tally.usage is not None:
            self._tokens.labels("prompt").inc(tally.usage.prompt)
            self._tokens.labels("completion").inc(tally.usage.completion)

    def text(self) -> bytes:
        """All of it in Prometheus' format."""
        return generate_latest(self._registry)
