"""How much memory a request takes at its peak."""

from __future__ import annotations

import ctypes
import gc
from pathlib import Path

import torch

from limbeck.evaluation.efficiency.latency import Request, answered

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
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        answered(request, 0)
        return int(torch.cuda.max_memory_allocated(device) - before)
    if device.type != "cpu":
        raise NotMeasured(f"not known for devices of the type {device.type}")
    try:
        ctypes.CDLL(None).malloc_trim(0)
        _CLEAR.write_text("5", encoding="ascii")  # the mark falls to what is there now
        before = _status("VmRSS")
        answered(request, 0)
        return max(0, _status("VmHWM") - before)
    except (OSError, AttributeError, TypeError, KeyError) as error:
        raise NotMeasured("the system keeps no mark of a process's memory that can be set back") from error


def held_bytes(model: torch.nn.Module) -> int:
    """Bytes of weights and buffers."""
    return sum(x.numel() * x.element_size() for x in (*model.parameters(), *model.buffers()))


def _status(name: str) -> int:
    """Bytes of a line in the process's status; a KeyError where it has none."""
    lines = dict(line.split(":", 1) for line in _STATUS.read_text(encoding="ascii").splitlines())
    return int(lines[name].split()[0]) * 1024
