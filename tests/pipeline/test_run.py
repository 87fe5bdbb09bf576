"""A recipe becomes a student, with everything that a run promises to leave."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import transformers

import limbeck
from limbeck.core import artifacts
from limbeck.core.errors import ArtifactError, DataError, ModelError
from limbeck.core.recipe import load_recipe
from limbeck.pipeline import api
from tests.pipeline.recipes import QUICK, WHOLE, images, language, qwen, resnet, stage, texts

STEPS = ("prepare", "train", "baseline", "evaluate", "report")


def files_of(output: Path) -> dict[str, str]:
    """The sha256 of every file of every step."""
    found = {}
    for step in STEPS:
        if (output / step).exists():
            found |= {f"{step}/{n}": e["sha256"] for n, e in artifacts.load(output / step).manifest["files"].items()}
    return found


def test_images_from_recipe_to_report(tmp_path: Path) -> None:
    result = limbeck.run(images(tmp_path / "run", baseline=True, data={"train": "digits"}, evaluate=WHOLE))
    assert {s["model"] for s in result.scores} == {"teacher", "student", "baseline"}
    assert 0 <= result.score("student", "accuracy") <= 1
    assert result.score("student", "size_ratio") > 1
    for model in ("teacher", "student", "baseline"):
        table = pq.read_table(tmp_path / "run" / "evaluate" / f"predictions-{model}.parquet")
        assert table.num_rows == 449
        accuracy = sum(table["correct"].to_pylist()) / 449
        assert accuracy == pytest.approx(result.score(model, "accuracy"))
    assert result.report is not None
    assert "</html>" in result.report.read_text()
    assert json.loads((tmp_path / "run" / "recipe.json").read_text())["stages"][0]["name"] == "distil"
    lines = [json.loads(x) for x in (tmp_path / "run" / "train" / "steps.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    assert set(lines[0]["terms"]) == {"cross_entropy", "kl"}
    student = transformers.AutoModelForImageClassification.from_pretrained(result.student)
    assert student.config.id2label[3] == "3"
    assert not list((tmp_path / "run").rglob(".checkpoints"))


def test_language_model_is_graded_by_generation(tmp_path: Path) -> None:
    recipe = language(tmp_path / "run", baseline=True, evaluate={**WHOLE, "max_new_tokens": 8})
    result = limbeck.run(recipe, until="evaluate")
    names = {s["name"] for s in result.scores if s["model"] == "student"}
    assert {"answer_accuracy", "perplexity", "unparsed_answers", "log_perplexity_minus_baseline"} <= names
    assert result.score("student", "perplexity") > 1
    tokenizer = transformers.AutoTokenizer.from_pretrained(result.student)
    assert tokenizer.decode(tokenizer("12 apples")["input_ids"]) == "12 apples"


def test_text_student_is_cut_from_its_teacher_in_bf16(tmp_path: Path) -> None:
    recipe = texts(tmp_path / "run", tmp_path / "rows.csv", baseline=True, evaluate=WHOLE)
    result = limbeck.run(recipe, until="evaluate")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(result.student)
    assert model.config.num_hidden_layers == 1
    assert set(model.config.label2id) == {"kind0", "kind1"}
    assert next(model.parameters()).dtype.itemsize == 4


def test_second_run_does_nothing_and_a_changed_stage_redoes_what_follows(tmp_path: Path) -> None:
    recipe = images(tmp_path / "run")
    limbeck.run(recipe)
    steps = [step for step in STEPS if step != "baseline"]

    def written() -> dict[str, int]:
        return {step: (tmp_path / "run" / step / "manifest.json").stat().st_mtime_ns for step in steps}

    before = written()
    limbeck.run(recipe)
    assert written() == before
    limbeck.run(recipe, ["stages.distil.max_steps=3"])
    changed = written()
    assert changed["prepare"] == before["prepare"]
    assert all(changed[step] != before[step] for step in ("train", "evaluate", "report"))


def test_same_seed_same_bytes_and_another_seed_other_weights(tmp_path: Path) -> None:
    weights = "train/student/model.safetensors"
    one, two = (limbeck.run(images(tmp_path / name), until="train").output for name in ("one", "two"))
    assert files_of(one)[weights] == files_of(two)[weights]
    other = limbeck.run(images(tmp_path / "other", seed=1), until="train").output
    assert files_of(other)[weights] != files_of(one)[weights]


def test_stages_follow_each_other_with_their_own_rows(tmp_path: Path) -> None:
    warm = stage(name="warm-up", terms=[{"type": "cross_entropy"}])
    own = stage(data={"train": "digits", "max_samples": 50})
    result = limbeck.run(images(tmp_path / "run", stages=[warm, own]), until="train")
    lines = [json.loads(x) for x in (result.output / "train" / "steps.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert [line["stage"] for line in lines] == ["warm-up", "warm-up", "distil", "distil"]
    best = artifacts.load(result.output / "train").manifest["best"]
    assert [b["stage"] for b in best] == ["warm-up", "distil"]


def test_early_stopping_ends_a_stage(tmp_path: Path) -> None:
    plan = stage(max_steps=50, eval_steps=1, early_stopping_patience=2, learning_rate=1e-9)
    result = limbeck.run(images(tmp_path / "run", stages=[plan]), until="train")
    assert len((result.output / "train" / "steps.jsonl").read_text().splitlines()) < 50


def test_teacher_ready_made_is_recorded_with_its_licence(tmp_path: Path) -> None:
    first = limbeck.run(images(tmp_path / "first"), until="prepare").output / "prepare" / "teacher"
    (first / "README.md").write_text("---\nlicense: mit\n---\n")
    result = limbeck.run(images(tmp_path / "second", teacher={"model": str(first)}), until="train")
    manifest = artifacts.load(result.output / "prepare").manifest
    assert manifest["model"]["licence"] == "mit"
    assert manifest["files"] == {}


def test_distil_in_one_call_finds_the_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = [f"evaluate.{name}={json.dumps(value)}" for name, value in QUICK.items()]
    whole = api.run_recipe
    monkeypatch.setattr(api, "run_recipe", lambda recipe, **how: whole(load_recipe(recipe, quick), **how))
    teacher = limbeck.run(images(tmp_path / "first"), until="prepare").output / "prepare" / "teacher"
    result = limbeck.distill(
        teacher=teacher, student={"config": resnet(4)}, data="digits", output=tmp_path / "run", epochs=0.1
    )
    assert result.score("student", "accuracy") >= 0
    recipe = json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert recipe["task"]["type"] == "image_classification"


def test_damaged_teacher_is_refused(tmp_path: Path) -> None:
    recipe = images(tmp_path / "run")
    limbeck.run(recipe, until="prepare")
    weights = tmp_path / "run" / "prepare" / "teacher" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    with pytest.raises(ArtifactError, match=r"teacher/model\.safetensors has changed"):
        limbeck.run(recipe)


def test_other_vocabulary_is_refused_naming_both(tmp_path: Path) -> None:
    first = limbeck.run(language(tmp_path / "first"), until="prepare").output / "prepare" / "teacher"
    recipe = language(
        tmp_path / "run",
        teacher={"model": str(first)},
        student={"config": qwen(8), "tokenizer": {"train": "bpe", "vocab_size": 280}},
    )
    with pytest.raises(ModelError, match="different vocabularies") as caught:
        limbeck.run(recipe)
    assert "from a config" in str(caught.value)
    assert str(first) in str(caught.value)


def test_padded_vocabulary_rows_are_shared_and_reported(tmp_path: Path) -> None:
    student = {"config": {**qwen(8), "vocab_size": 320}}
    result = limbeck.run(language(tmp_path / "run", student=student))
    notes = artifacts.load(result.output / "train").manifest["notes"]
    assert any("renormalised" in note and "320" in note for note in notes)
    assert result.report is not None
    assert "renormalised" in result.report.read_text()


def test_teacher_of_other_classes_is_refused(tmp_path: Path) -> None:
    first = limbeck.run(images(tmp_path / "first"), until="prepare").output / "prepare" / "teacher"
    config = json.loads((first / "config.json").read_text())
    config["id2label"]["0"], config["label2id"] = "zero", {**config["label2id"], "zero": 0}
    (first / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="other classes"):
        limbeck.run(images(tmp_path / "second", teacher={"model": str(first)}))


def test_empty_data_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    recipe = texts(tmp_path / "run", tmp_path / "rows.csv")
    (tmp_path / "rows.csv").write_text("text,label\n")
    with pytest.raises(DataError, match=r"rows\.csv"):
        limbeck.run(recipe)
    assert not (tmp_path / "run" / "prepare").exists()
