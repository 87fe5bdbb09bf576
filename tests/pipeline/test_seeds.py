"""One recipe under several seeds."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
from scipy import stats

from limbeck.core.errors import RecipeError
from limbeck.core.recipe import Recipe, load_recipe
from limbeck.pipeline import run, seeds
from limbeck.pipeline.run import Result
from limbeck.pipeline.seeds import run_seeds
from tests.pipeline.recipes import images, language


def test_difference_and_its_interval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seeds, "run_recipe", partial(run.run_recipe, until="evaluate"))  # no report is looked at
    found = run_seeds(load_recipe(images(tmp_path / "run", baseline=True)), 3)
    assert found is not None
    gaps = [row["student"] - row["baseline"] for row in found.rows]
    expected = stats.ttest_1samp(gaps, 0).confidence_interval(0.95)
    assert found.difference == pytest.approx(sum(gaps) / 3)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert json.loads(found.path.read_text())["rows"] == found.rows
    assert {row["seed"] for row in found.rows} == {0, 1, 2}


def test_without_a_baseline_there_is_no_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run_recipe(recipe: Recipe, *, force: bool) -> Result:
        recipe.output.mkdir(parents=True)
        scores = [{"model": "student", "name": "accuracy", "value": 0.5 + recipe.seed / 8}]
        return Result(recipe.output, recipe.output / "train" / "student", None, scores)

    monkeypatch.setattr(seeds, "run_recipe", run_recipe)
    found = run_seeds(load_recipe(images(tmp_path / "run")), 2)
    assert found is not None
    assert found.difference is None
    assert found.rows == [{"seed": 0, "student": 0.5}, {"seed": 1, "student": 0.625}]


def test_one_seed_is_not_several(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="several seeds"):
        run_seeds(load_recipe(images(tmp_path / "run")), 1)


def test_answers_that_are_not_graded_are_refused_before_anything_runs(tmp_path: Path) -> None:
    recipe = load_recipe(language(tmp_path / "run"), ["task.answer_pattern=null"])
    with pytest.raises(RecipeError, match=r"grades no answers(.|\n)*task\.answer_pattern"):
        run_seeds(recipe, 2)
    assert not (tmp_path / "run").exists()


def test_only_the_first_process_compares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []

    def run_recipe(recipe: Recipe, *, force: bool) -> Result:
        ran.append(recipe.seed)
        return Result(recipe.output, recipe.output / "train" / "student", None, [])

    monkeypatch.setattr(seeds, "run_recipe", run_recipe)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert run_seeds(load_recipe(images(tmp_path / "run")), 3) is None
    assert ran == [0, 1, 2]
    assert not (tmp_path / "run").exists()
