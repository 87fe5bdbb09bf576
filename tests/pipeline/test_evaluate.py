"""The step `evaluate`: what it leaves, and the budget that comes after it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import limbeck
from limbeck.core.errors import BudgetError, DataError
from limbeck.evaluation.predictions import read
from tests.pipeline.recipes import QUICK, images, language, texts

OFF = {**QUICK, "robustness": None, "interpretability": None}


def test_a_classifiers_predictions_and_details_and_its_budget(tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    recipe = texts(tmp_path / "run", rows, evaluate=OFF, budget={"latency_p50": 1e-6})
    with pytest.raises(BudgetError, match="latency_p50"):
        limbeck.run(recipe)
    folder = tmp_path / "run" / "evaluate"
    scores = (folder / "scores.json").read_text()
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*.json")}
    assert (tmp_path / "run" / "report" / "index.html").exists()
    with pytest.raises(BudgetError):  # again, without work
        limbeck.run(recipe)
    assert made[folder / "scores.json"] == (folder / "scores.json").stat().st_mtime_ns
    limbeck.run({**recipe, "budget": {"latency_p50": 1e6}})
    assert (folder / "scores.json").read_text() == scores, "another budget measures nothing anew"
    table, held = read(folder / "predictions-student.parquet"), read(folder / "predictions-student-validation.parquet")
    assert table.classes == held.classes
    assert isinstance(table["input"][0], str)
    assert not set(table["id"]) & set(held["id"])
    details = {path.stem: json.loads(path.read_text()) for path in (folder / "details").glob("*.json")}
    assert {"classes", "errors", "reliability"} <= details.keys()
    assert details["reliability"]["student"]["temperature_fitted_on"] == "validation"


def test_a_language_models_predictions_say_what_was_asked_and_written(tmp_path: Path) -> None:
    few = {"latency_runs": 2, "resamples": 100, "max_new_tokens": 5, "speed": {"batch_sizes": [2], "seconds": 0.01}}
    few |= {"robustness": {"severities": [1], "max_samples": 4}, "interpretability": {"max_samples": 4}}
    result = limbeck.run(language(tmp_path / "run", evaluate=few), until="evaluate")
    axes = {row["axis"] for row in result.scores}
    assert axes >= {"accuracy", "agreement", "robustness", "interpretability", "efficiency"}
    table = read(tmp_path / "run" / "evaluate" / "predictions-student.parquet")
    assert len(table) == 8
    assert "####" in table["reference"][0]
    assert all(1 <= count <= 5 for count in table["new_tokens"])
    assert set(table["draw"]) == {0}
    assert all(isinstance(text, str) and text for text in table["input"])
    assert not list((tmp_path / "run" / "evaluate").glob("*-validation.parquet"))


def test_a_slice_that_no_row_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cty"):
        limbeck.run(images(tmp_path / "run", evaluate={**OFF, "slices": ["cty"]}))
