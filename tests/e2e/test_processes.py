"""`limbeck run` in two processes gives what it gives in one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from limbeck.core.recipe import load_recipe
from tests.pipeline.recipes import language


@pytest.mark.slow
def test_two_processes(tmp_path: Path) -> None:
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    for name, start in (("one", []), ("two", torchrun)):
        recipe = tmp_path / f"{name}.yaml"
        recipe.write_text(load_recipe(language(tmp_path / name, baseline=True)).model_dump_json())
        done = subprocess.run(
            [sys.executable, *start, "-m", "limbeck", "run", str(recipe)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.count("report   ") == 1
    for folder in ("prepare/teacher", "train/student", "baseline/student"):
        one, two = (load_file(tmp_path / name / folder / "model.safetensors") for name in ("one", "two"))
        for key, value in one.items():
            torch.testing.assert_close(two[key], value, rtol=1e-4, atol=1e-5)
