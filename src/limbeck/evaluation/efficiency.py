"""What a model costs: parameters, bytes, and the time of a single request."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    pass

WARM_UP = 5


def weight_bytes(model: torch.nn.Module) -> int:
    """Bytes of all weights in memory, tied ones once."""
    return sum(p.numel() * p.element_size() for p in model.parameters())


def latencies(requests: Mapping[str, Callable[[int], Any]], runs: int) -> dict[str, np.ndarray[Any, Any]]:
    """Milliseconds of single requests. Models take turns, so that a machine's moods fall on all alike.

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
            request(i % runs)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if i >= 0:
                took[name].append((time.perf_counter() - began) * 1000)
    return {name: np.asarray(times) for name, times in took.items()}
