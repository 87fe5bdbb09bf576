"""`limbeck run` in two processes gives what it gives in one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from limbeck.core.recipe import Recipe, load_recipe
from limbeck.pipeline.run import run_recipe
from tests.pipeline.recipes import language, stage
from tests.processes import together

TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]


@pytest.mark.slow
def test_two_processes(tmp_path: Path) -> None:
    run_recipe(load_recipe(language(tmp_path / "one", baseline=True)), until="train")
    recipe = tmp_path / "two.yaml"
    recipe.write_text(load_recipe(language(tmp_path / "two", baseline=True)).model_dump_json())
    command = [sys.executable, *TORCHRUN, "-m", "limbeck", "run", str(recipe)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("report   ") == 1
    for folder in ("prepare/teacher", "train/student", "baseline/student"):
        one, two = (load_file(tmp_path / name / folder / "model.safetensors") for name in ("one", "two"))
        for key, value in one.items():
            torch.testing.assert_close(two[key], value, rtol=1e-4, atol=1e-5)


def train_alone(recipe: Recipe) -> None:
    """What each of two processes does."""
    run_recipe(recipe, until="train")


def test_terms_with_parameters_of_their_own_in_two_processes(tmp_path: Path) -> None:
    """Three steps of cross-entropy, KL and a projected layer: the same parameters as in one process."""
    teacher = run_recipe(load_recipe(language(tmp_path / "teacher")), until="prepare").output / "prepare" / "teacher"
    hint = {"type": "hidden", "match": {"model.layers.0": "model.layers.0"}}
    terms = [{"type": "cross_entropy"}, {"type": "kl"}, hint]
    plan = stage(terms=terms, max_steps=3, lr_scheduler_type="constant")
    one, two = (
        load_recipe(language(tmp_path / name, teacher={"model": str(teacher)}, stages=[plan]))
        for name in ("one", "two")
    )
    run_recipe(one, until="train")
    together(train_alone, two)
    known, found = (load_file(tmp_path / name / "train" / "student" / "model.safetensors") for name in ("one", "two"))
    for key, value in known.items():
        torch.testing.assert_close(found[key], value, rtol=0, atol=1e-6)
