"""The step `compress`: the gate, what it leaves, and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from limbeck.core.artifacts import load
from limbeck.core.errors import BudgetError, RecipeError
from limbeck.core.recipe import Recipe
from limbeck.core.recipe.compress import Gate
from limbeck.pipeline._job import RunJob
from limbeck.pipeline.compress import Verdict, compress, judge
from limbeck.pipeline.run import run_recipe
from limbeck.runtime.student import load_student
from tests.pipeline import recipes

RIGHT = np.zeros(200, dtype=np.int64)


def answers(wrong: int) -> np.ndarray:
    return (np.arange(200) < wrong).astype(np.int64)


def test_gate_lets_the_same_answers_through() -> None:
    found = judge(Gate(), answers(20), answers(20), RIGHT)

    assert (found.passed, found.drop, found.agreement) == (True, 0.0, 1.0)
    assert 0 < found.upper < 0.02


@pytest.mark.parametrize(
    ("gate", "reason"),
    [
        (Gate(drop=0.02), "accuracy falls by 0.0500, allowed 0.02"),
        (Gate(drop=None, bound=0.06), "the fall may be 0.08"),
        (Gate(drop=None, agreement=0.99), "the same on 0.9500 of the rows, asked for 0.99"),
    ],
)
def test_gate_says_what_is_crossed(gate: Gate, reason: str) -> None:
    found = judge(gate, answers(20), answers(30), RIGHT)

    assert not found.passed
    assert len(found.crossed) == 1
    assert reason in found.crossed[0]


def test_gate_that_asks_for_nothing_lets_all_through() -> None:
    assert judge(Gate(drop=None), answers(0), answers(200), RIGHT).passed


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("compress") / "run"
    run_recipe(Recipe.model_validate(recipes.images(output)), until="train")
    return output


def steps(output: Path, said: Any) -> Any:
    job = RunJob(Recipe.model_validate(recipes.images(output, compress=said)))
    return compress(job, {"train": load(output / "train")})


def test_what_is_left(trained: Path) -> None:
    made = steps(trained, "int8")

    verdict = json.loads(made.file("gate.json").read_text())
    scores = {(row["model"], row["name"]): row for row in json.loads(made.file("scores.json").read_text())}
    small = load_student(made.path)
    assert verdict["passed"]
    assert (small.card.format, small.card.precision, small.runner.engine) == ("onnx", "int8", "onnxruntime")
    assert scores["compressed", "accuracy_drop"]["value"] == pytest.approx(
        scores["student", "accuracy"]["value"] - scores["compressed", "accuracy"]["value"]
    )
    assert scores["compressed", "accuracy"]["split"] == "validation"
    assert made.manifest["mode"] == "static"


@pytest.fixture
def fresh(trained: Path, tmp_path: Path) -> Path:
    """The same run, not compressed yet."""
    shutil.copytree(trained / "train", tmp_path / "run" / "train")
    return tmp_path / "run"


def test_refused_student_leaves_nothing_and_names_layers(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worse = Verdict(False, 0.1, 0.2, 0.8, 9, ("accuracy falls by 0.1000, allowed 0.01",))
    monkeypatch.setattr("limbeck.pipeline.compress.judge", lambda *_: worse)

    with pytest.raises(BudgetError, match=r"layers that suffer most: \S+ \(KL [\s\S]*compress.keep=\["):
        steps(fresh, "int8")

    assert not (fresh / "compress").exists()


def test_too_few_rows_for_a_bound_are_told(fresh: Path) -> None:
    with pytest.raises(BudgetError, match=r"validation rows are too few[\s\S]*the bound is 0\.0"):
        steps(fresh, {"type": "int8", "gate": {"drop": None, "bound": 0.0}})

    assert not (fresh / "compress").exists()


def test_language_models_are_sent_elsewhere(tmp_path: Path) -> None:
    job = RunJob(Recipe.model_validate(recipes.language(tmp_path / "run", compress="int8")))

    with pytest.raises(RecipeError, match="classifiers"):
        compress(job, {})
