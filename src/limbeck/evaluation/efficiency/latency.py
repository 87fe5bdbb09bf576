"""The time of requests, of one row and of many at once. Models take turns: a machine's moods fall on all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

Request = Callable[[int], Any]
"""Answers request number i."""

WARM_UP = 5


def latencies(requests: Mapping[str, Request], runs: int) -> dict[str, np.ndarray[Any, Any]]:
    """Milliseconds of single requests, in turns.

    Args:
        requests: by model, a function that answers request number i.
        runs: timed requests per model.

    Returns:
        By model, [runs].
    """
    took: dict[str, list[float]] = {name: [] for name in requests}
    for i in range(-WARM_UP, runs):
        for name, request in requests.items():
            began = time.perf_counter()
            answered(request, i % runs)
            if i >= 0:
                took[name].append((time.perf_counter() - began) * 1000)
    return {name: np.asarray(times) for name, times in took.items()}


def answered(request: Request, i: int) -> None:
    """Send a request, and wait until an accelerator has answered it."""
    request(i)
    if torch.cuda.is_available():
        torch.cuda.synchronize()


@dataclass
class Watched:
    """A request that takes down how long it keeps CPU cores busy, all cores together.

    Attributes:
        request: what is watched.
        cpu_seconds: of each time it was sent.
    """

    request: Request
    cpu_seconds: list[float] = field(default_factory=list)

    def __call__(self, i: int) -> None:
        began = time.process_time()
        answered(self.request, i)
        self.cpu_seconds.append(time.process_time() - began)


@dataclass
class Pace:
    """How fast a model answers many rows at once.

    Attributes:
        batch_size: rows at a time.
        batches: how many were timed.
        seconds: how long they took.
        cpu_seconds: how long they kept CPU cores busy.
        fits: whether memory was enough for all of them.
    """

    batch_size: int
    batches: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    fits: bool = True

    @property
    def rows(self) -> int:
        """Rows that were answered."""
        return self.batches * self.batch_size

    def ends_within(self, seconds: float) -> bool:
        """Whether another batch is to be timed: at least one is, and more while the next is likely to end in time."""
        return self.fits and (not self.batches or self.seconds * (1 + 1 / self.batches) <= seconds)

    def take(self, request: Request, timed: bool = True) -> None:
        """Send the next batch, and take its time; memory may be too small for this one, where it was not before."""
        began, cpu = time.perf_counter(), time.process_time()
        try:
            answered(request, self.batches)
        except torch.OutOfMemoryError:
            self.fits = False
            return
        if timed:
            self.seconds += time.perf_counter() - began
            self.cpu_seconds += time.process_time() - cpu
            self.batches += 1


def paces(requests: Mapping[str, Request], batch_size: int, seconds: float) -> dict[str, Pace]:
    """How fast models answer batches, in turns: one to warm up, then as many as fit into the time.

    Args:
        requests: by model, a function that answers batch number i.
        batch_size: rows in each.
        seconds: the most time for each model.
    """
    found = {name: Pace(batch_size) for name in requests}
    for name, request in requests.items():
        found[name].take(request, timed=False)
    while going := [name for name, pace in found.items() if pace.ends_within(seconds)]:
        for name in going:
            found[name].take(requests[name])
    return found
