"""Other projects' tools, each run in a process of its own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from limbeck.core.errors import ModelError

_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}


def run_tool(name: str, words: list[str], folder: Path, seconds: float) -> None:
    """Run another project's tool in a process of its own, which may not go to the hub.

    Raises:
        ModelError: it fails, with its last line, or takes too long.
    """
    try:
        done = subprocess.run(
            words, cwd=folder, env={**os.environ, **_OFFLINE}, capture_output=True, text=True, timeout=seconds
        )
    except subprocess.TimeoutExpired as error:
        raise ModelError(f"{name} took too long", got=f"over {seconds:.0f} s") from error
    if done.returncode != 0:
        last = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise ModelError(f"{name} failed", got=last[-1].strip() if last else f"status {done.returncode}")
