"""How much energy requests take, where the hardware counts it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from limbeck.evaluation.efficiency.latency import Request, answered
from limbeck.evaluation.efficiency.memory import NotMeasured

POWERCAP = Path("/sys/class/powercap")
"""Where Linux shows the energy counters of processors (RAPL)."""


@dataclass(frozen=True)
class Meter:
    """A counter of energy.

    Attributes:
        microjoules: what it says now.
        range: where it starts again from 0; None: never.
    """

    microjoules: Callable[[], int]
    range: int | None

    def since(self, before: int) -> int:
        """Microjoules since it said so, if it has not gone round twice."""
        grown = self.microjoules() - before
        return grown if grown >= 0 or self.range is None else grown + self.range


def meters(device: torch.device) -> list[Meter]:
    """The counters of what answers on a device: the GPU, or all of the machine's processors.

    Raises:
        NotMeasured: there is none, or it may not be read.
    """
    return [_gpu(device)] if device.type == "cuda" else processors(POWERCAP)


def processors(folder: Path) -> list[Meter]:
    """A counter for each processor package.

    Args:
        folder: with the counters, one folder each.

    Raises:
        NotMeasured: there is none, or it may not be read.
    """
    # Named `intel-rapl` for AMD's processors too. `intel-rapl:0:1` is a part of `intel-rapl:0`.
    packages = [each for each in sorted(folder.glob("intel-rapl:*")) if each.name.count(":") == 1]
    if not packages:
        raise NotMeasured("the processor shows no energy counter (RAPL)")
    try:
        found = [_package(each) for each in packages]
        for meter in found:
            meter.microjoules()
    except OSError as error:
        raise NotMeasured("the processor's energy counter may be read by root alone") from error
    return found


def _package(folder: Path) -> Meter:
    read = lambda name: int((folder / name).read_text(encoding="ascii"))  # noqa: E731
    return Meter(lambda: read("energy_uj"), read("max_energy_range_uj"))


def _gpu(device: torch.device) -> Meter:
    try:
        nvml: Any = import_module("pynvml")
    except ImportError as error:
        raise NotMeasured("the GPU's energy counter is read by nvidia-ml-py, which is not installed") from error
    try:
        nvml.nvmlInit()
        handle = nvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except nvml.NVMLError as error:
        raise NotMeasured(f"the GPU's energy counter cannot be read: {error}") from error
    return Meter(lambda: 1000 * int(nvml.nvmlDeviceGetTotalEnergyConsumption(handle)), None)


def joules(request: Request, counters: Sequence[Meter], seconds: float) -> tuple[float, int]:
    """Energy of requests sent one after another, with all that the processor does besides.

    Args:
        request: a single one.
        counters: are read before and after.
        seconds: for how long, at least one request.

    Returns:
        Joules in all, and how many requests.
    """
    before = [meter.microjoules() for meter in counters]
    began, count = time.perf_counter(), 0
    while not count or time.perf_counter() - began < seconds:
        answered(request, count)
        count += 1
    return sum(meter.since(was) for meter, was in zip(counters, before, strict=True)) / 1e6, count
