"""How much memory a request takes at its peak."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from limbeck.evaluation.efficiency.latency import Request, answered
from limbeck.evaluation.served import ServedModel

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class NotMeasured(Exception):
    """Why a figure cannot be had on this machine."""


def peak_bytes(request: Request, device: torch.device) -> int:
    """What a request takes at its peak beside what was there before it.

    On a GPU, PyTorch counts it. On a CPU it is the growth of the process's resident memory, for which Linux keeps a
    high-water mark: one request goes before, so that libraries and weights are there, and memory that is free but
    held back is given to the system.

    Args:
        request: is sent twice.
        device: where it is answered.

    Raises:
        NotMeasured: neither is there.
    """
    answered(request, 0)
    if device.type == "cuda":
        gc.collect()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        answered(request, 0)
        return int(torch.cuda.max_memory_allocated(device) - before)
    if device.type != "cpu":
        raise NotMeasured(f"not known for devices of the type {device.type}")
    with _linux():
        _trim()
        _CLEAR.write_text("5", encoding="ascii")  # the mark falls to what is there now
        before = _status("VmRSS")
        answered(request, 0)
        return max(0, _status("VmHWM") - before)


def held_bytes(model: torch.nn.Module) -> int:
    """Bytes of weights and buffers; in another engine, what the process grows by when it loads the model once more.

    Raises:
        NotMeasured: the growth is not known.
    """
    if not isinstance(model, ServedModel):
        return sum(x.numel() * x.element_size() for x in (*model.parameters(), *model.buffers()))
    with _linux():
        _trim()
        before = _status("VmRSS")
        again = model.load()
        _trim()
        grown = max(0, _status("VmRSS") - before)
        del again
        return grown


@contextmanager
def _linux() -> Iterator[None]:
    try:
        yield
    except (OSError, AttributeError, TypeError, KeyError) as error:
        raise NotMeasured("the system keeps no mark of a process's memory that can be set back") from error


def _trim() -> None:
    """Give memory that is free but held back to the system."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


def _status(name: str) -> int:
    """Bytes of a line in the process's status; a KeyError where it has none."""
    lines = dict(line.split(":", 1) for line in _STATUS.read_text(encoding="ascii").splitlines())
    return int(lines[name].split()[0]) * 1024
