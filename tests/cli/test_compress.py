"""`limbeck compress`: a recipe or a run, and what is printed of the comparison."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from limbeck.cli import app
from limbeck.core.recipe import dump_recipe, load_recipe
from tests.cli.command import inside, refused

RECIPE = Path(__file__).parents[2] / "recipes" / "quickstart.yaml"
SCORES = [
    {"model": "student", "name": "accuracy", "value": 0.96, "low": 0.94, "high": 0.97, "n": 500},
    {"model": "compressed", "name": "accuracy", "value": 0.958, "low": 0.93, "high": 0.97, "n": 500},
    {"model": "student", "name": "bytes_on_disk", "value": 5_053_156, "n": 1},
    {"model": "compressed", "name": "bytes_on_disk", "value": 1_345_039, "n": 1},
    {"model": "compressed", "name": "accuracy_drop", "value": 0.002, "n": 500},
    {"model": "compressed", "name": "accuracy_drop_bound", "value": 0.0071, "n": 500},
]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the pipeline was asked for; it leaves scores, and does nothing else."""
    seen: dict[str, Any] = {}

    def run_recipe(recipe: Any, *, until: str, force: bool) -> None:
        seen.update(recipe=recipe, until=until, force=force)
        (recipe.output / "compress").mkdir(parents=True)
        (recipe.output / "compress" / "scores.json").write_text(json.dumps(SCORES))

    monkeypatch.setattr("limbeck.pipeline.run.run_recipe", run_recipe)
    return seen


def test_a_recipe_without_the_section_is_compressed_to_int8(asked: dict[str, Any], tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["compress", str(RECIPE), f"output={tmp_path}/run"])

    assert done.exit_code == 0, done.output
    assert (asked["until"], asked["recipe"].compress.type()) == ("compress", "int8")
    assert done.stdout.splitlines() == [
        "student     accuracy 96.00% [94.00%, 97.00%]  5.05 MB",
        "compressed  accuracy 95.80% [93.00%, 97.00%]  1.35 MB",
        "fall 0.20%, below 0.71%; 500 validation rows",
        f"compressed  {tmp_path}/run/compress/student",
    ]


def test_of_a_language_model_perplexity_is_told(
    asked: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = [
        {"model": "student", "name": "perplexity", "value": 8.1234, "low": None, "high": None, "n": 1},
        {"model": "compressed", "name": "perplexity", "value": 8.2, "low": 8.05, "high": 8.4, "n": 1},
        *SCORES[2:4],
        {"model": "compressed", "name": "perplexity_rise", "value": 0.0094, "n": 1},
    ]
    monkeypatch.setitem(globals(), "SCORES", told)
    done = CliRunner().invoke(app, ["compress", str(RECIPE), f"output={tmp_path}/run"])

    assert done.stdout.splitlines()[:3] == [
        "student     perplexity 8.123  5.05 MB",
        "compressed  perplexity 8.2 [8.05, 8.4]  1.35 MB",
        "rise 0.94%; 1 validation rows",
    ]


def test_a_runs_folder_keeps_its_own_settings(asked: dict[str, Any], tmp_path: Path) -> None:
    recipe = load_recipe(RECIPE, ["output=runs/elsewhere", "compress={type: int8, mode: static}"])
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.json").write_text(json.dumps(dump_recipe(recipe)))

    done = CliRunner().invoke(app, ["compress", str(tmp_path / "run"), "compress.keep=[classifier]", "--force"])

    assert done.exit_code == 0, done.output
    assert (asked["force"], asked["recipe"].output) == (True, tmp_path / "run")
    assert (asked["recipe"].compress.mode, asked["recipe"].compress.keep) == ("static", ("classifier",))


def test_a_folder_that_is_no_run_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(inside(monkeypatch, "compress", str(tmp_path)), "is no run")
