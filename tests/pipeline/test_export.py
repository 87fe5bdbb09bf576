"""Recipes and folders are exported: artifacts that say what the student says, or nothing."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import limbeck
from limbeck.core import artifacts
from limbeck.core.errors import ArtifactError, DataError, ModelError, RecipeError
from limbeck.core.recipe import load_recipe
from limbeck.pipeline._job import RunJob
from limbeck.pipeline.export import Trained, plain_folder
from limbeck.pipeline.export import trained as trained_by
from limbeck.runtime.student import load_student, runner_of
from tests.pipeline.recipes import images, language, texts
from tests.runtime.students import BERT, LABELS, LANGUAGE, PICTURE, QWEN, RESNET, TEXT, rows, student


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run as far as its evaluation, for all tests that leave it as it is."""
    folder = tmp_path_factory.mktemp("trained")
    return limbeck.run(texts(folder / "run", folder / "rows.csv"), until="evaluate").output


def copied(trained: Path, place: Path) -> Path:
    """A run of its own."""
    import shutil

    return Path(shutil.copytree(trained, place / "run"))


def test_a_recipe_is_exported_once(trained: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    run = copied(trained, tmp_path)
    recipe = {**json.loads((run / "recipe.json").read_text()), "output": str(run)}
    recipe["export"] = ["onnx", {"type": "hugging_face", "precision": "bf16", "name": "small"}]
    result = limbeck.run(recipe, until="export")
    assert result.report is None
    made = artifacts.load(run / "export" / "onnx")
    assert made.manifest["same_answers"] == 1
    assert made.manifest["relative_difference"] < 1e-3
    assert made.manifest["opset"] == 20
    assert made.manifest["rows"] == 4
    assert set(made.manifest["latency_p50"]) == {"student", "export"}
    whole = sum(path.stat().st_size for path in made.path.iterdir() if path.name != "manifest.json")
    assert made.manifest["bytes"] == whole
    served = load_student(made.path)
    assert served.card.temperature == pytest.approx(result.score("student", "temperature"))
    assert served.card.facts["opset"] == 20
    assert {answer.label for answer in served.predict(rows(TEXT, 3))} <= {"kind0", "kind1"}
    assert artifacts.read_manifest(run / "export" / "small")["precision"] == "bf16"

    times = [path.stat().st_mtime_ns for path in sorted((run / "export").rglob("*"))]
    limbeck.run(recipe, until="export")
    assert limbeck.export(run, "onnx")["onnx"] == run / "export" / "onnx"
    assert [path.stat().st_mtime_ns for path in sorted((run / "export").rglob("*"))] == times


def test_a_damaged_export_is_not_taken_for_done(trained: Path, tmp_path: Path) -> None:
    run = copied(trained, tmp_path)
    weights = limbeck.export(run, "hugging_face")["hugging_face"] / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-3] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"model.safetensors has changed"):
        limbeck.export(run, "hugging_face")
    student_file = run / "train" / "student" / "model.safetensors"
    student_file.write_bytes(student_file.read_bytes()[:-1])
    with pytest.raises(ArtifactError, match="damaged"):
        limbeck.export(run, "hugging_face", force=True)


def test_an_export_that_says_something_else_is_not_kept(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from limbeck.exporters import hugging_face as exporter

    load_model, run = exporter.load_model, copied(trained, tmp_path)

    def tampered(*given: Any, **how: Any) -> Any:
        model = load_model(*given, **how)
        with torch.no_grad():
            model.classifier.weight[0, 0] += 1.0
        return model

    monkeypatch.setattr(exporter, "load_model", tampered)
    with pytest.raises(ModelError, match="does not say what the student says") as refused:
        limbeck.export(run, "hugging_face")
    assert "largest difference" in str(refused.value.got)
    assert not (run / "export" / "hugging_face").exists()
    (run / "export" / ".hugging_face.partial" / "left by the first try").write_text("")
    monkeypatch.setattr(exporter, "load_model", load_model)
    folder = limbeck.export(run, "hugging_face")["hugging_face"]
    assert not (folder / "left by the first try").exists()
    assert artifacts.load(folder).manifest["same_answers"] == 1


def test_without_an_evaluation_the_temperature_is_fitted_here(trained: Path, tmp_path: Path) -> None:
    import shutil

    run = copied(trained, tmp_path)
    shutil.rmtree(run / "evaluate")
    told = artifacts.load(limbeck.export(run, "hugging_face")["hugging_face"]).manifest
    assert told["rows"] == 4
    assert told["temperature"] != 1.0


@pytest.mark.slow  # two residual networks are trained
def test_pictures(tmp_path: Path) -> None:
    """Through the pipeline, but not by way of ONNX: that is tests/exporters."""
    run = limbeck.run(images(tmp_path / "i"), until="train").output
    told = artifacts.load(limbeck.export(run, "hugging_face")["hugging_face"]).manifest
    assert told["rows"] == 64
    assert told["temperature"] != 1.0  # fitted here, as nothing was evaluated


@pytest.mark.slow  # two language models are trained
def test_language_models(tmp_path: Path) -> None:
    run = limbeck.run(language(tmp_path / "l"), until="train").output
    made = artifacts.load(limbeck.export(run, {"type": "hugging_face"})["hugging_face"])
    assert made.manifest["rows"] == 8
    assert made.manifest["answers"] > 8
    assert made.manifest["temperature"] == 1.0


def test_a_plain_language_model(tmp_path: Path) -> None:
    student(tmp_path / "model", LANGUAGE, QWEN)
    made = limbeck.export(tmp_path / "model", "hugging_face", task=LANGUAGE, output=tmp_path / "out")
    told = artifacts.load(made["hugging_face"]).manifest
    assert told["answers"] > told["rows"] > 8
    assert told["temperature"] == 1.0


def test_a_plain_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    student(tmp_path / "model", TEXT, BERT)
    monkeypatch.chdir(tmp_path)
    folder = limbeck.export("model", "hugging_face")["hugging_face"]
    assert folder == Path("export/hugging_face")
    told = artifacts.load(folder).manifest
    assert told["notes"] == ["compared on made-up rows: give real ones with --rows"]
    assert told["temperature"] == 1.0
    lines = [{"text": f"the words of {i}", "label": [LABELS[i % 3], i % 3][i % 2]} for i in range(12)]
    Path("rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    task = {"type": "text-classification", "max_length": 16}
    told = artifacts.load(
        limbeck.export("model", "hugging_face", rows="rows.jsonl", task=task)["hugging_face"]
    ).manifest
    assert (told["rows"], told["notes"]) == (12, [])
    assert told["temperature"] != 1.0
    card = load_student("export/hugging_face").card
    assert card.task["max_length"] == 16
    assert card.temperature == told["temperature"]
    Path("bare.jsonl").write_text('{"text": "no class"}\n')
    told = artifacts.load(limbeck.export("model", "hugging_face", rows="bare.jsonl")["hugging_face"]).manifest
    assert (told["rows"], told["temperature"]) == (1, 1.0)
    Path("bare.jsonl").write_text('{"words": "no text"}\n')
    with pytest.raises(DataError, match="has no `text`"):
        limbeck.export("model", "hugging_face", rows="bare.jsonl")


def test_rows_with_pictures_are_known_by_what_they_show(tmp_path: Path) -> None:
    from PIL import Image

    student(tmp_path / "model", PICTURE, RESNET)

    def found(*shades: int) -> Trained:
        lines = []
        for shade, label in zip(shades, ("cat", 1, None), strict=True):
            Image.new("L", (8, 8), shade).save(buffer := io.BytesIO(), "PNG")
            lines.append({"image": {"bytes": buffer.getvalue()}, "label": None if label is None else str(label)})
        pq.write_table(pa.Table.from_pylist(lines), tmp_path / "rows.parquet")
        return plain_folder(tmp_path / "model", PICTURE, tmp_path / "rows.parquet")

    one, other = found(0, 40, 80), found(0, 40, 80)
    assert one.inputs == other.inputs
    assert [row.target for row in one.rows] == ["cat", "dog", None]
    assert not one.calibrated
    assert found(0, 200, 80).inputs != one.inputs
    made = limbeck.export(tmp_path / "model", "hugging_face", rows=tmp_path / "rows.parquet", output=tmp_path / "out")
    assert artifacts.load(made["hugging_face"]).manifest["rows"] == 3


def test_a_class_that_the_student_does_not_know_is_refused(tmp_path: Path) -> None:
    student(tmp_path / "model", TEXT, BERT)
    (tmp_path / "rows.jsonl").write_text('{"text": "a", "label": "cat"}\n{"text": "b", "label": "fish"}\n')

    with pytest.raises(DataError, match=r"row 1 has a class that the student does not know") as refused:
        plain_folder(tmp_path / "model", None, tmp_path / "rows.jsonl")
    assert (refused.value.got, refused.value.allowed) == ("fish", "cat, dog, bird")


def test_the_temperature_of_another_student_is_not_taken(trained: Path) -> None:
    job = RunJob(load_recipe(json.loads((trained / "recipe.json").read_text())))
    train, evaluate = (artifacts.load(trained / name) for name in ("train", "evaluate"))
    old = replace(evaluate, manifest={**evaluate.manifest, "parents": {"train": "of an older student"}})

    ours, others = (trained_by(job, {"train": train, "evaluate": each}) for each in (evaluate, old))

    assert ours.calibrated
    assert ours.card.temperature != 1.0
    assert not others.calibrated
    assert (others.card.temperature, others.inputs["temperature"]) == (1.0, None)


def test_student_and_export_are_timed_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    student(tmp_path / "model", TEXT, BERT)
    asked: list[dict[str, Any]] = []

    def watched(*given: Any, **how: Any) -> Any:
        asked.append(how)
        return runner_of(*given, **how)

    monkeypatch.setattr("limbeck.pipeline.export.runner_of", watched)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        made = limbeck.export(tmp_path / "model", "hugging_face", output=tmp_path / "out")["hugging_face"]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert asked == [{"threads": 1, "device": artifacts.load(made).manifest["device"]}]


def test_what_cannot_be_exported_is_refused(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="did you mean 'onnx'"):
        limbeck.export(trained, "onxx")
    with pytest.raises(RecipeError, match="two exports are named onnx"):
        limbeck.export(trained, ["onnx", "onnx"])
    with pytest.raises(RecipeError, match="nothing says"):
        limbeck.export(trained)
    with pytest.raises(RecipeError, match="knows its task"):
        limbeck.export(trained, "onnx", task="text-classification")
    with pytest.raises(RecipeError, match="cannot be exported"):
        limbeck.export(trained, {"type": "onnx", "opset": 3})
    with pytest.raises(ModelError, match="no student in"):
        limbeck.export(tmp_path, "onnx")
    (tmp_path / "recipe.json").write_text((trained / "recipe.json").read_text())
    with pytest.raises(ArtifactError, match="has no student yet"):
        limbeck.export(tmp_path, "onnx")


def test_the_recipe_names_exports_once(tmp_path: Path) -> None:
    raw = images(tmp_path / "run")
    assert [each.type() for each in load_recipe({**raw, "export": "onnx"}).export] == ["onnx"]
    assert load_recipe({**raw, "export": None}).export == []
    recipe = load_recipe({**raw, "export": ["onnx", {"type": "onnx", "name": "half", "precision": "fp16"}]})
    assert [each.folder for each in recipe.export] == ["onnx", "half"]  # type: ignore[attr-defined]
    again = load_recipe({**raw, "export": ["onnx"]}, ["export.onnx.opset=19"])
    assert again.export[0].opset == 19  # type: ignore[attr-defined]
    for wrong, said in (
        (["onnx", "onnx"], "two exports are named onnx"),
        (["abacus"], "this names no exporter"),
        ([{"type": "onnx", "name": "../out"}], "name"),
    ):
        with pytest.raises(RecipeError) as refused:
            load_recipe({**raw, "export": wrong})
        assert said in str(refused.value)
