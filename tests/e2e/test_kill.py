"""A run that is killed goes on to the same student; one that is asked to stop loses nothing."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from limbeck.core import artifacts

ROOT = Path(__file__).parents[2]
LIMBECK = [sys.executable, "-m", "limbeck"]
KILLS = 10


def start(output: Path, *settings: str) -> subprocess.Popen[bytes]:
    """`limbeck run` on the quickstart, in a session of its own, on one thread."""
    command = [*LIMBECK, "run", "recipes/quickstart.yaml", f"output={output}", *settings]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True, **quiet)  # type: ignore[call-overload,no-any-return]


def weights(output: Path) -> dict[str, str]:
    """The sha256 of teacher's, student's and baseline's weights."""
    found = {}
    for step, name in (("prepare", "teacher"), ("train", "student"), ("baseline", "student")):
        files = artifacts.load(output / step).manifest["files"]
        found[step] = files[f"{name}/model.safetensors"]["sha256"]
    return found


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_at_random_moments_it_ends_with_the_same_weights(tmp_path: Path) -> None:
    began = time.monotonic()
    assert start(tmp_path / "whole").wait(timeout=600) == 0
    took = time.monotonic() - began
    draw, killed, runs = random.Random(), 0, 0
    while killed < KILLS:  # a run that gets to its end between two kills is compared, and another begins
        runs += 1
        output = tmp_path / f"killed-{runs}"
        while True:
            process = start(output, "training.save_steps=10")
            try:
                limit = draw.uniform(0.05, 0.5) * took if killed < KILLS else 600
                assert process.wait(timeout=limit) == 0
                break
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                killed += 1
        assert weights(output) == weights(tmp_path / "whole")


@pytest.mark.slow
def test_asked_to_stop_it_saves_and_goes_on(tmp_path: Path) -> None:
    assert start(tmp_path / "whole").wait(timeout=600) == 0
    process = start(tmp_path / "run")
    log = tmp_path / "run" / ".prepare.partial" / "steps.jsonl"
    deadline = time.monotonic() + 120
    while not (log.exists() and len(log.read_text().splitlines()) > 20):
        assert time.monotonic() < deadline, "training did not begin"
        assert process.poll() is None
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGTERM)
    asked = time.monotonic()
    assert process.wait(timeout=30) == 143
    assert time.monotonic() - asked < 10
    checkpoint = next((tmp_path / "run" / ".prepare.partial" / ".checkpoints").glob("step-*"))
    saved = json.loads((checkpoint / "progress.json").read_text())["step"]
    assert saved == json.loads(log.read_text().splitlines()[-1])["step"]
    assert start(tmp_path / "run").wait(timeout=600) == 0
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")
