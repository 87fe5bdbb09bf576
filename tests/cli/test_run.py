"""`limbeck run` and the single steps: arguments go where they should, mistakes are told at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from limbeck.cli import app
from limbeck.core.artifacts import seal
from limbeck.pipeline.run import STEPS, Result
from limbeck.pipeline.seeds import SeedReport
from tests.cli.command import inside, limbeck, refused

SCORES = [
    {"model": model, "axis": "task", "name": "accuracy", "value": value, "low": value - 0.01, "high": value + 0.01}
    | {"n": 449, "unit": "", "split": "test"}
    for model, value in (("teacher", 0.98), ("student", 0.96))
]
RECIPE = Path(__file__).parents[2] / "recipes" / "quickstart.yaml"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """What the pipeline was asked for; it does nothing."""
    seen: dict[str, Any] = {}
    (tmp_path / "train").mkdir()
    seal(tmp_path / "train", {"seconds": 75.0})

    def run_recipe(recipe: Any, *, until: str, force: bool) -> Result:
        seen.update(recipe=recipe, until=until, force=force)
        page = tmp_path / "report" / "index.html" if until == "report" else None
        return Result(tmp_path, tmp_path / "train" / "student", page, SCORES if page else [])

    def run_seeds(recipe: Any, seeds: int, *, force: bool) -> SeedReport:
        seen.update(recipe=recipe, seeds=seeds, force=force)
        rows = [{"seed": 0, "student": 0.5, "baseline": 0.25}, {"seed": 1, "student": 0.75, "baseline": 0.25}]
        return SeedReport(tmp_path / "seeds.json", "accuracy", rows, 0.375, -1.2132, 1.9632)

    monkeypatch.setattr("limbeck.pipeline.run.run_recipe", run_recipe)
    monkeypatch.setattr("limbeck.pipeline.seeds.run_seeds", run_seeds)
    return seen


def test_run_goes_to_the_report_and_prints_the_scores(asked: dict[str, Any], tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["run", str(RECIPE), "seed=3", "stages.distil.epochs=9"])
    assert done.exit_code == 0, done.output
    assert (asked["until"], asked["force"]) == ("report", False)
    assert (asked["recipe"].seed, asked["recipe"].stages[0].epochs) == (3, 9)
    shown = done.stdout.replace("\N{NO-BREAK SPACE}", " ")
    assert "98.0 % [97.0, 99.0]" in shown
    assert "96.0 % [95.0, 97.0]" in shown
    assert "steps took" in done.stdout
    assert f"student  {tmp_path}/train/student" in done.stdout
    assert f"report   {tmp_path}/report/index.html" in done.stdout


OWN = ("generate", "cache", "compress", "cascade", "optimize", "export")
"""Steps whose commands say something of their own at the end."""


@pytest.mark.parametrize("step", [step for step in STEPS if step not in OWN])
def test_a_step_runs_until_itself(asked: dict[str, Any], step: str) -> None:
    done = CliRunner().invoke(app, [step, str(RECIPE), "seed=3", "--force"])
    assert done.exit_code == 0, done.output
    assert (asked["until"], asked["force"], asked["recipe"].seed) == (step, True, 3)


def test_seeds_are_compared(asked: dict[str, Any]) -> None:
    done = CliRunner().invoke(app, ["run", str(RECIPE), "--seeds", "2"])
    assert done.exit_code == 0, done.output
    assert asked["seeds"] == 2
    assert "student - baseline: +0.3750 [-1.2132, +1.9632] over 2 seeds" in done.stdout


def test_one_seed_is_too_few(asked: dict[str, Any]) -> None:
    assert CliRunner().invoke(app, ["run", str(RECIPE), "--seeds", "1"]).exit_code == 2
    assert asked == {}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "nowhere.yaml"], "error: there is no recipe at nowhere.yaml\n  fix: limbeck init TASK writes one\n"),
        (["train", str(RECIPE), "sede=1"], "sede: unknown key; did you mean 'seed'?"),
        (["run", str(RECIPE), "stages.distil.epoch=3"], "stages.0.epoch: unknown key; did you mean 'epochs'?"),
        (["run", str(RECIPE), "--seeds", "3", "teacher=null"], "the recipe has no `teacher`"),
        (["report", "."], "the recipe . cannot be read"),
    ],
)
def test_a_mistake_is_one_message(words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    refused(inside(monkeypatch, *words), said)
    assert list(tmp_path.iterdir()) == []


def test_a_mistake_is_told_before_the_libraries_are_imported() -> None:
    code = (
        "import sys; from limbeck.cli import main; sys.argv = ['limbeck', 'run', 'nowhere.yaml']\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert end.code == 1\n"
        "assert not {'torch', 'transformers', 'datasets'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_a_misspelt_key_in_a_process_of_its_own(tmp_path: Path) -> None:
    done = limbeck("run", str(RECIPE), "stages.distil.terms.kl.temprature=3", folder=tmp_path)
    refused(done, "stages.0.terms.1.temprature: unknown key; did you mean 'temperature'?")
    assert done.returncode == 1


def test_a_folder_in_use_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from limbeck.core.artifacts import locked

    with locked(tmp_path / "run"):
        done = inside(monkeypatch, "prepare", str(RECIPE), f"output={tmp_path}/run")
        refused(done, "is in use by another run", "got: process ")
