"""A run that is killed goes on to the same student; one that is asked to stop loses nothing."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Any

import pytest

from limbeck.core import artifacts
from tests.processes import limbeck

RECIPE = Path(__file__).parents[2] / "recipes" / "quickstart.yaml"
SHORTER = (
    "teacher.finetune.epochs=4",
    "stages.distil.epochs=30",
    "evaluate.robustness=null",
    "evaluate.latency_runs=5",
)
KILLS = 10


def start(output: Path, *settings: str) -> Any:
    """`limbeck run` on the quickstart, with fewer steps, in a process of its own."""
    return limbeck("run", str(RECIPE), f"output={output}", *SHORTER, *settings)


def status(process: Any, patience: float) -> int | None:
    """How a process ended; None if it is at work still."""
    process.join(patience)
    found: int | None = process.exitcode
    return found


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
    assert status(start(tmp_path / "whole"), 600) == 0
    took = time.monotonic() - began
    draw, killed, runs = random.Random(), 0, 0
    while killed < KILLS:  # a run that gets to its end between two kills is compared, and another begins
        runs += 1
        output = tmp_path / f"killed-{runs}"
        while True:
            process = start(output, "training.save_steps=10")
            ended = status(process, draw.uniform(0.05, 0.5) * took if killed < KILLS else 600)
            if ended is not None:
                assert ended == 0
                break
            process.kill()
            process.join()
            killed += 1
        assert weights(output) == weights(tmp_path / "whole")


@pytest.mark.slow
def test_asked_to_stop_it_saves_and_goes_on(tmp_path: Path) -> None:
    assert status(start(tmp_path / "whole"), 600) == 0
    process = start(tmp_path / "run")
    log = tmp_path / "run" / ".prepare.partial" / "steps.jsonl"
    deadline = time.monotonic() + 120
    while not (log.exists() and len(log.read_text().splitlines()) > 20):
        assert time.monotonic() < deadline, "training did not begin"
        assert process.is_alive()
        time.sleep(0.1)
    process.terminate()
    asked = time.monotonic()
    assert status(process, 30) == 143
    assert time.monotonic() - asked < 10
    checkpoint = next((tmp_path / "run" / ".prepare.partial" / ".checkpoints").glob("step-*"))
    saved = json.loads((checkpoint / "progress.json").read_text())["step"]
    assert saved == json.loads(log.read_text().splitlines()[-1])["step"]
    assert status(start(tmp_path / "run"), 600) == 0
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")
