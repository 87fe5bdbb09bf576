"""Runs that could go wrong without a word: they are told, or redone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import limbeck
from limbeck.core import artifacts
from limbeck.core.errors import DataError, ModelError, RecipeError
from tests.pipeline.recipes import images, language, stage, texts


def written(output: Path, step: str) -> int:
    return (output / step / "manifest.json").stat().st_mtime_ns


def test_classes_are_read_by_index_and_not_by_their_place_in_the_file(tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    recipe = texts(tmp_path / "first", rows)
    rows.write_text("text,label\n" + "".join(f"it is {i % 12} today,kind{i % 12:02}\n" for i in range(60)))
    teacher = limbeck.run(recipe, until="prepare").output / "prepare" / "teacher"
    config = json.loads((teacher / "config.json").read_text())
    config["id2label"] = {k: config["id2label"][k] for k in sorted(config["id2label"])}  # "0", "1", "10", "11", "2"
    (teacher / "config.json").write_text(json.dumps(config))
    student = {"model": "from-teacher", "layers": [0, 1]}
    again = {**recipe, "output": str(tmp_path / "second"), "teacher": {"model": str(teacher)}, "student": student}
    result = limbeck.run(again, until="train")
    saved = json.loads((result.student / "config.json").read_text())["id2label"]
    assert [saved[str(i)] for i in range(12)] == [f"kind{i:02}" for i in range(12)]


def test_a_teacher_is_made_again_when_the_classes_change(tmp_path: Path) -> None:
    rows, own = tmp_path / "rows.csv", tmp_path / "own.csv"
    recipe = texts(tmp_path / "run", rows)
    own.write_text(rows.read_text())
    recipe["teacher"]["finetune"]["data"] = {"train": str(own), "test": str(own)}
    limbeck.run(recipe, until="prepare")
    before = written(tmp_path / "run", "prepare")
    limbeck.run(recipe, until="prepare")
    assert written(tmp_path / "run", "prepare") == before
    rows.write_text(rows.read_text().replace("kind1", "aaa"))
    own.write_text(own.read_text().replace("kind1", "aaa"))
    limbeck.run(recipe, until="prepare")
    assert written(tmp_path / "run", "prepare") != before


def test_training_does_not_depend_on_the_test_rows(tmp_path: Path) -> None:
    rows, test = tmp_path / "rows.csv", tmp_path / "test.csv"
    recipe = texts(tmp_path / "run", rows)
    test.write_text("text,label\nit was 5 then,kind1\nit was 4 then,kind0\n")
    recipe["data"] = {"train": str(rows), "test": str(test)}
    limbeck.run(recipe, until="evaluate")
    before = {step: written(tmp_path / "run", step) for step in ("prepare", "train", "evaluate")}
    test.write_text(test.read_text() + "it was 3 then,kind1\n")
    result = limbeck.run(recipe, until="evaluate")
    assert written(tmp_path / "run", "prepare") == before["prepare"]
    assert written(tmp_path / "run", "train") == before["train"]
    assert written(tmp_path / "run", "evaluate") != before["evaluate"]
    assert {s["n"] for s in result.scores if s["name"] == "accuracy"} == {3}


def test_rows_that_were_trained_on_are_counted_and_told(tmp_path: Path) -> None:
    result = limbeck.run(texts(tmp_path / "run", tmp_path / "rows.csv"))  # its test rows are its training rows
    counts = artifacts.load(result.output / "evaluate").manifest["counts"]
    assert counts["rows_also_trained_on"] == 40
    assert result.report is not None
    assert "40 of these rows have the same inputs as a row that a model was trained on" in result.report.read_text()


def test_rows_that_evaluation_loses_are_counted(tmp_path: Path) -> None:
    recipe = language(tmp_path / "run", task={"type": "causal-lm", "max_length": 40, "answer_pattern": None})
    result = limbeck.run(recipe, until="evaluate")
    lost = artifacts.load(result.output / "evaluate").manifest["counts"]["lost"]["student"]
    assert sum(lost.values()) > 0


def test_mistakes_are_told_before_the_teacher_is_trained(tmp_path: Path) -> None:
    wrong_layer = texts(tmp_path / "one", tmp_path / "rows.csv", student={"model": "from-teacher", "layers": [9]})
    with pytest.raises(ModelError, match="layers that the teacher has not"):
        limbeck.run(wrong_layer)
    odd = images(tmp_path / "two", stages=[stage(global_batch_size=10, per_device_train_batch_size=4)])
    with pytest.raises(RecipeError, match="whole number of micro-batches"):
        limbeck.run(odd)
    for name in ("one", "two"):
        assert not (tmp_path / name / ".prepare.partial").exists()


def test_answers_longer_than_the_positions_are_refused_before_the_training(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="prompt and generated answer") as caught:
        limbeck.run(language(tmp_path / "run"), ["evaluate.max_new_tokens=250"])
    assert "max_new_tokens" in str(caught.value)
    assert not (tmp_path / "run" / "train").exists()


def test_a_pair_that_lacks_its_second_text_is_an_error(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    lines = [{"text": f"a{i}", "text_pair": f"b{i}", "label": f"k{i % 2}"} for i in range(20)]
    lines[7].pop("text_pair")
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines))
    recipe = texts(tmp_path / "run", tmp_path / "unused.csv")
    recipe["data"] = {"train": str(rows), "test": str(rows)}
    with pytest.raises(DataError, match="text_pair"):
        limbeck.run(recipe)
