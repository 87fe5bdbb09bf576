"""Running the command line as a user does, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def limbeck(*words: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """`limbeck WORDS`, in a terminal of 100 columns."""
    command = [sys.executable, "-m", "limbeck", *words]
    env = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=env, timeout=300)


def refused(done: subprocess.CompletedProcess[str], *said: str) -> None:
    """It failed, with one clear message on standard error and nothing that looks like a crash."""
    assert done.returncode != 0
    assert "Traceback" not in done.stdout + done.stderr
    assert done.stdout == ""
    for text in said:
        assert text in done.stderr
    assert done.stderr.count("error:") + done.stderr.count("─ Error ─") == 1
