"""What the Python face hands to the pipeline, and what it refuses before anything runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import limbeck
from limbeck.core.errors import DataError, RecipeError
from limbeck.core.recipe import Recipe
from limbeck.pipeline import api
from limbeck.pipeline.run import Result
from tests.pipeline.recipes import images, resnet


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Recipe]:
    """The recipes that were to be run; nothing is."""
    seen: list[Recipe] = []

    def run_recipe(recipe: Recipe, *, until: str, force: bool, ledger: Path | None) -> Result:
        seen.append(recipe)
        return Result(recipe.output, recipe.output / "train" / "student", None, [])

    monkeypatch.setattr(api, "run_recipe", run_recipe)
    return seen


def distill(tmp_path: Path, **fields: Any) -> None:
    given = {"teacher": "org/teacher", "student": "org/student", "data": "digits", "task": "image-classification"}
    limbeck.distill(**{**given, "output": tmp_path / "run", **fields})


@pytest.mark.parametrize(
    ("student", "given", "rate"),
    [
        ("org/student", {}, 5e-5),
        (Path("folder"), {}, 5e-5),
        ({"model": "org/student", "revision": "main"}, {}, 5e-5),
        ({"model": "from-teacher", "layers": [0]}, {}, 5e-5),
        ({"config": resnet(4)}, {}, 1e-3),
        ("org/student", {"learning_rate": 3e-4}, 3e-4),
    ],
)
def test_learning_rate_by_where_the_student_is_from(
    asked: list[Recipe], tmp_path: Path, student: Any, given: dict[str, float], rate: float
) -> None:
    distill(tmp_path, student=student, **given)
    assert asked[0].stages[0].learning_rate == rate


def test_a_new_teacher_keeps_the_default_learning_rate(asked: list[Recipe], tmp_path: Path) -> None:
    distill(tmp_path, teacher={"config": resnet(8), "finetune": {"epochs": 1}})
    teacher = asked[0].teacher
    assert teacher is not None
    assert teacher.finetune is not None
    assert teacher.finetune.learning_rate == 1e-3


def test_the_seed_is_handed_on(asked: list[Recipe], tmp_path: Path) -> None:
    distill(tmp_path)
    distill(tmp_path, seed=7)
    assert [recipe.seed for recipe in asked] == [0, 7]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"teacher": {"modle": "org/teacher"}, "task": None}, "teacher.modle: unknown key; did you mean 'model'?"),
        ({"student": {"modle": "org/student"}, "task": None}, "student.modle: unknown key; did you mean 'model'?"),
        ({"teacher": {"config": resnet(8)}, "task": None}, "teacher: a new teacher knows nothing"),
        ({"learning_rat": 1}, "training.learning_rat: unknown key"),
    ],
)
def test_mistakes_are_told_as_in_a_recipe(tmp_path: Path, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        distill(tmp_path, **fields)
    assert said in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_step_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"(?s)no step named 'trian'.*did you mean 'train'"):
        limbeck.run(images(tmp_path / "run"), until="trian")
    assert not (tmp_path / "run").exists()


def test_a_recipe_that_fails_does_not_take_the_place_of_the_one_that_ran(tmp_path: Path) -> None:
    def seed() -> int:
        return int(json.loads((tmp_path / "run" / "recipe.json").read_text())["seed"])

    limbeck.run(images(tmp_path / "run"), until="prepare")
    with pytest.raises(DataError):
        limbeck.run(images(tmp_path / "run", seed=1, data={"train": "digits", "label": "lable"}), until="prepare")
    assert seed() == 0
    limbeck.run(images(tmp_path / "run", seed=1), until="prepare")
    assert seed() == 1
