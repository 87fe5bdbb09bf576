"""Prometheus' figures of all replicas, told by whichever of them is asked.

Replicas are asked in turns: the figures of one alone would jump from scrape to scrape. Each gives its own to a board
from time to time, and gets those of the others; `replica` tells them apart.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from limbeck.serving.metrics import Metrics

LABEL = "replica"
"""Of every figure: whose it is."""
Exchange = Callable[[str, str], Mapping[str, str]]
"""Gives a replica's figures to the board; gets those of all, by name."""


class Board:
    """The newest figures of every replica.

    Args:
        keep: seconds after which a replica that says nothing more is forgotten.
    """

    def __init__(self, keep: float = 30.0):
        self._keep = keep
        self._told: dict[str, tuple[float, str]] = {}

    def put(self, name: str, text: str) -> dict[str, str]:
        """Take a replica's figures; give those of all.

        Args:
            name: of the replica.
            text: its figures in Prometheus' format.
        """
        now = time.monotonic()
        self._told[name] = (now, text)
        self._told = {each: told for each, told in self._told.items() if now - told[0] <= self._keep}
        return {each: text for each, (_, text) in self._told.items()}


class SharedMetrics(Metrics):
    """A replica's counters, told together with those of the others.

    Args:
        name: of this replica.
        exchange: with the board; while it fails, the figures are this replica's and the others' last ones.
        seconds: between exchanges.
    """

    def __init__(self, name: str, exchange: Exchange, seconds: float = 2.0):
        super().__init__()
        self._name, self._exchange, self._seconds = name, exchange, seconds
        self._others: Mapping[str, str] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._share, name="figures", daemon=True)
        self._thread.start()

    def text(self) -> bytes:
        """The figures of all replicas in Prometheus' format."""
        return merged({**self._others, self._name: super().text().decode()})

    def close(self) -> None:
        """Exchange no more."""
        self._stop.set()
        self._thread.join(1.0)

    def _share(self) -> None:
        while not self._stop.wait(self._seconds):
            try:
                self._others = self._exchange(self._name, super().text().decode())
            except Exception:  # the board is on its way down or up: the next turn tells
                continue


def merged(texts: Mapping[str, str]) -> bytes:
    """One exposition of several, each figure labelled with whose it is.

    Args:
        texts: in Prometheus' format, by name.
    """
    found: dict[str, Metric] = {}
    for name, text in sorted(texts.items()):
        for family in text_string_to_metric_families(text):
            whole = found.setdefault(family.name, Metric(family.name, family.documentation, family.type, family.unit))
            for sample in family.samples:
                labels = {**sample.labels, LABEL: name}
                whole.add_sample(sample.name, labels, sample.value, sample.timestamp, sample.exemplar)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Found(found))
    return generate_latest(registry)


class _Found:
    def __init__(self, families: Mapping[str, Metric]):
        self._families = families

    def collect(self) -> list[Metric]:
        return list(self._families.values())
