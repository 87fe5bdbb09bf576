"""A run that is killed while it compresses or exports goes on to the same files."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import limbeck
from limbeck.core import artifacts
from limbeck.core.recipe import load_recipe
from tests.pipeline.recipes import texts

KILLS = 10
STEPS = ("compress", "export/onnx")


def start(recipe: Path, output: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "limbeck", "run", str(recipe), f"output={output}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, env=environment, start_new_session=True, **quiet)


def killed_within(process: subprocess.Popen[bytes], partial: Path, after: float) -> bool:
    """Kill a run so long after a step has begun; False if it came to its end before."""
    deadline = time.monotonic() + 300
    while process.poll() is None and not partial.exists():
        assert time.monotonic() < deadline, f"{partial.name} was not begun"
        time.sleep(0.01)
    try:
        assert process.wait(timeout=after) == 0
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return True
    return False


@pytest.mark.torture
@pytest.mark.timeout(1800)
def test_killed_while_it_ships_it_ends_with_the_same_files(tmp_path: Path) -> None:
    part = {"type": "int8", "tolerance": {"drop": 1.0}}
    loaded = load_recipe(texts(tmp_path / "trained", tmp_path / "rows.csv", compress=part, export=["onnx"]))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(loaded.model_dump_json())  # JSON is YAML
    limbeck.run(loaded, until="train")
    shutil.copytree(tmp_path / "trained", tmp_path / "whole")
    assert start(recipe, tmp_path / "whole").wait(timeout=300) == 0
    whole = {step: artifacts.load(tmp_path / "whole" / step).manifest for step in STEPS}
    draw, killed, runs = random.Random(), 0, 0
    while killed < KILLS:
        runs += 1
        output = tmp_path / f"killed-{runs}"
        shutil.copytree(tmp_path / "trained", output)
        for step in random.sample(STEPS, k=len(STEPS)):
            place = output / step
            partial = place.with_name(f".{place.name}.partial")
            killed += killed_within(start(recipe, output), partial, draw.uniform(0, 1.2) * whole[step]["seconds"])
        assert start(recipe, output).wait(timeout=300) == 0
        for step in STEPS:
            assert artifacts.load(output / step).manifest["files"] == whole[step]["files"]
    assert "student/model.onnx" in whole["compress"]["files"]
