"""What Prometheus is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from limbeck.serving.engine import Engine, Ran

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_MODEL = ("model", "version")


class Metrics:
    """One server's counters; labels come from the server's own names, never from a request."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter(
            "limbeck_requests", "Requests that ended.", ("protocol", "route", "code"), registry=registry
        )
        self.seconds = Histogram(
            "limbeck_request_seconds",
            "From the first byte to the answer.",
            ("protocol", "route"),
            buckets=_SECONDS,
            registry=registry,
        )
        self.in_flight = Gauge("limbeck_requests_in_flight", "Requests under way.", registry=registry)
        self._rows = Gauge("limbeck_queue_rows", "Rows that wait.", _MODEL, registry=registry)
        self._queued = Gauge("limbeck_queue_tokens", "Tokens that wait.", _MODEL, registry=registry)
        self._sizes = Histogram("limbeck_batch_rows", "Rows of a batch.", _MODEL, buckets=_ROWS, registry=registry)
        self._took = Histogram("limbeck_batch_seconds", "Of a batch.", _MODEL, buckets=_SECONDS, registry=registry)
        self._tokens = Counter("limbeck_tokens", "Tokens that were computed.", _MODEL, registry=registry)
        self._padding = Counter("limbeck_padding_tokens", "Tokens that only fill up.", _MODEL, registry=registry)
        self.cascade_rows = Counter(
            "limbeck_cascade_rows", "Rows by the model of the cascade that answered.", ("by",), registry=registry
        )
        self.cascade_missed = Counter(
            "limbeck_cascade_missed",
            "Rows for which a model should have been asked and gave no answer.",
            ("model", "reason"),
            registry=registry,
        )
        self.feedback_rows = Counter(
            "limbeck_feedback_rows", "Rows on which models disagree.", ("outcome",), registry=registry
        )
        self._counted: dict[tuple[str, str, str], tuple[Counter, Histogram]] = {}
        self._failed = Counter("limbeck_failed_rows", "Rows on which the model failed.", _MODEL, registry=registry)

    def ended(self, protocol: str, route: str, code: str, seconds: float) -> None:
        """A request ended.

        Args:
            protocol: http or grpc.
            route: by the server's own name.
            code: of the answer.
            seconds: that it took.
        """
        key = (protocol, route, code)
        if (counted := self._counted.get(key)) is None:  # finding them by their labels takes longer than counting
            counted = self._counted[key] = (self.requests.labels(*key), self.seconds.labels(protocol, route))
        counted[0].inc()
        counted[1].observe(seconds)

    def observer(self, model: str, version: str) -> Callable[[Ran], None]:
        """What an engine tells of its batches."""
        names = (model, version)
        sizes, took, tokens = self._sizes.labels(*names), self._took.labels(*names), self._tokens.labels(*names)
        padding, failed = self._padding.labels(*names), self._failed.labels(*names)

        def observe(ran: Ran) -> None:
            sizes.observe(ran.rows)
            took.observe(ran.seconds)
            tokens.inc(ran.tokens)
            padding.inc(ran.padded - ran.tokens)
            failed.inc(ran.failed)

        return observe

    def watch(self, model: str, version: str, engine: Engine[Any, Any]) -> None:
        """Read the depth of an engine's queue whenever metrics are asked for."""
        self._rows.labels(model, version).set_function(lambda: engine.waiting)
        self._queued.labels(model, version).set_function(lambda: engine.waiting_tokens)

    def forget(self, model: str, version: str) -> None:
        """A model is no longer served."""
        for each in (self._rows, self._queued):
            each.remove(model, version)

    def text(self) -> bytes:
        """All of it in Prometheus' format."""
        return generate_latest(self._registry)
