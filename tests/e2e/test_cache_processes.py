"""`limbeck cache` in two processes records what it records in one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from limbeck.cache.store import Cache
from limbeck.core import artifacts
from limbeck.core.recipe import load_recipe
from limbeck.pipeline.run import run_recipe
from tests.cache.made import files
from tests.e2e.test_processes import TORCHRUN
from tests.pipeline.recipes import language, stage

HINT = {"type": "hidden", "match": {"model.layers.0": "model.layers.0"}}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_processes_record_the_same(tmp_path: Path) -> None:
    """One thread each, so that a sum is added up in one order: then not a byte differs, and signals are equal."""
    rows = {"type": "arithmetic", "train_size": 250, "validation_size": 8, "test_size": 8}
    first = language(tmp_path / "one", data={"train": rows}, cache={}, stages=[stage(terms=[{"type": "kl"}, HINT])])
    plan = load_recipe(first)
    run_recipe(plan, until="cache")
    # One teacher for both: what is recorded is compared here, and not how it was trained.
    (tmp_path / "two").mkdir()
    (tmp_path / "one" / "prepare").rename(tmp_path / "two" / "prepare")
    recipe = tmp_path / "two.yaml"
    recipe.write_text(plan.model_copy(update={"output": tmp_path / "two"}).model_dump_json())
    command = [sys.executable, *TORCHRUN, "-m", "limbeck", "cache", str(recipe)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("cache is done") == 1
    assert len(files(tmp_path / "one" / "cache")) == 10  # five shards: both processes had some
    assert files(tmp_path / "one" / "cache") == files(tmp_path / "two" / "cache")
    one, two = (Cache(tmp_path / name / "cache") for name in ("one", "two"))
    told = [artifacts.load(tmp_path / name / "cache").manifest for name in ("one", "two")]
    assert told[0]["cache"] == told[1]["cache"]
    everything = range(len(one))
    assert len(one) == len(two) == 258
    for mine, theirs in zip(vars(one.dist(everything)).values(), vars(two.dist(everything)).values(), strict=True):
        assert torch.equal(mine, theirs)
    for mine, theirs in zip(one.features(everything), two.features(everything), strict=True):
        assert all(torch.equal(value, theirs[name]) for name, value in mine.items())
