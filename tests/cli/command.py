"""Running the command line as a user does, in a process of its own."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from limbeck.cli import main


def limbeck(*words: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """`limbeck WORDS`, in a terminal of 100 columns."""
    command = [sys.executable, "-m", "limbeck", *words]
    env = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=env, timeout=300)


def inside(monkeypatch: pytest.MonkeyPatch, *words: str) -> subprocess.CompletedProcess[str]:
    """The same within this process, which is quicker where a command imports much."""
    out, err, status = io.StringIO(), io.StringIO(), 0
    with monkeypatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["limbeck", *words])
        try:
            main()
        except SystemExit as left:
            status = int(left.code or 0)
    return subprocess.CompletedProcess(words, status, out.getvalue(), err.getvalue())


def refused(done: subprocess.CompletedProcess[str], *said: str) -> None:
    """It failed, with one clear message on standard error and nothing that looks like a crash."""
    assert done.returncode != 0
    assert "Traceback" not in done.stdout + done.stderr
    assert done.stdout == ""
    for text in said:
        assert text in done.stderr
    assert done.stderr.count("error:") + done.stderr.count("─ Error ─") == 1
