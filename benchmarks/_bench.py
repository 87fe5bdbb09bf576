"""What the benchmarks share: options, turns, spreads, memory of this process, the machine, and the dated file."""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

MIB = 2**20
T = TypeVar("T")


def parser(document: str | None) -> argparse.ArgumentParser:
    """Options of a script that writes a result, told of in its own words."""
    made = argparse.ArgumentParser(description=document, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--results", type=Path, default=Path(__file__).parent / "results", help="folder of the JSON")
    return made


def turns(forms: Sequence[T], rounds: int) -> Iterator[T]:
    """Every form once a round, in another order each time; a line on stderr after each round."""
    for i in range(rounds):
        yield from forms[i % len(forms) :]
        yield from forms[: i % len(forms)]
        print(f"round {i + 1} of {rounds}", file=sys.stderr)


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and range."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def highest() -> int:
    """Bytes that this process has had resident at most."""
    try:  # Linux hands ru_maxrss down to children, so that a large parent would be measured in their place
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def resident() -> int:
    """Bytes that this process has resident now; where the system does not tell, the most it has had."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return highest()


def machine(*packages: str) -> dict[str, Any]:
    """Where and with what it was measured.

    Args:
        packages: peers, whose versions are told as well.
    """
    from importlib.metadata import version

    import torch

    from limbeck.core.artifacts import versions

    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    model = next((line.split(":")[1].strip() for line in text.splitlines() if line.startswith("model name")), "")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "system": platform.system(),
        "architecture": platform.machine(),
        "processor": model or platform.machine(),
        "processors": os.cpu_count(),
        "memory_gib": round(memory, 1),
        "torch": torch.__version__,
        "versions": versions(),
        **{name: version(name) for name in packages},
    }


def write(folder: Path, name: str, result: Mapping[str, Any]) -> None:
    """The dated file of a result."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{time.strftime('%Y-%m-%d')}-{name}.json"
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"written to {path}")
