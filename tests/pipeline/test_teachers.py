"""Who teaches, as a recipe says it: several teachers, another recipe's student, the student's own past."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from safetensors.torch import load_file

import limbeck
from limbeck.core import artifacts
from limbeck.core.errors import DataError, ModelError, RecipeError
from limbeck.core.recipe import Teacher
from limbeck.models.load import load_model
from limbeck.pipeline._teaching import _member
from limbeck.teachers.remembering import RememberingTeacher
from tests.pipeline.recipes import BERT, QUICK, images, language, qwen, resnet, stage

CLASSES = ("low", "high")
BODY = {**BERT, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}


def bert(**fields: Any) -> dict[str, Any]:
    return {"config": BODY, "tokenizer": {"train": "bpe", "vocab_size": 270}, "finetune": {"max_steps": 8}, **fields}


def texts(output: Path, **fields: Any) -> dict[str, Any]:
    """Short texts of two classes and two domains; two encoders, trained from other seeds, teach a third."""
    rows = output.parent / "rows.csv"
    lines = [f"{'dim' if i % 2 else 'bright'} day {i % 5},{CLASSES[i % 2]},{'uk'[i % 3 > 0]}" for i in range(30)]
    rows.write_text("\n".join(["text,label,domain", *lines]))
    return {
        "task": {"type": "text-classification", "max_length": 16},
        "output": str(output),
        "teacher": {**bert(), "also": [bert()]},
        "student": {"config": {**BODY, "hidden_size": 8}},
        "data": {"train": str(rows), "test": str(rows)},
        "training": {"global_batch_size": 10},
        "stages": [stage(terms=[{"type": "kl"}])],
        "evaluate": QUICK,
        **fields,
    }


def probabilities(output: Path, model: str = "teacher") -> np.ndarray[Any, Any]:
    table = pq.read_table(output / "evaluate" / f"predictions-{model}.parquet")
    return np.array(table["probabilities"].to_pylist())


def weights(folder: Path) -> dict[str, Any]:
    return load_file(folder / "model.safetensors")


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with two teachers, and with each of them alone, as folders `both`, `one` and `other`."""
    folder = tmp_path_factory.mktemp("two")
    limbeck.run(texts(folder / "both"), until="evaluate")
    for name, place in (("one", "teacher"), ("other", "teacher-2")):
        alone = {"model": str(folder / "both" / "prepare" / place)}
        limbeck.run(texts(folder / name, teacher=alone), until="evaluate")
    return folder


def ready(two: Path, **fields: Any) -> dict[str, Any]:
    """Both teachers, trained already."""
    first, second = (str(two / "both" / "prepare" / name) for name in ("teacher", "teacher-2"))
    also = {"model": second, **fields.pop("second", {})}
    return {"model": first, "also": [also], **fields}


class TestSeveral:
    def test_are_all_trained_and_kept(self, two: Path) -> None:
        one, other = (weights(two / "both" / "prepare" / name) for name in ("teacher", "teacher-2"))
        assert any(not value.equal(other[key]) for key, value in one.items())
        manifest = artifacts.load(two / "both" / "prepare").manifest
        assert manifest["parameters"] == manifest["also"][0]["parameters"]
        assert {"steps.jsonl", "teacher-2-log/steps.jsonl"} <= set(manifest["files"])

    def test_answer_together_in_the_evaluation(self, two: Path) -> None:
        both, one, other = (probabilities(two / name) for name in ("both", "one", "other"))
        assert np.abs(one - other).max() > 1e-3
        np.testing.assert_allclose(both, (one + other) / 2, atol=1e-6)

    def test_are_up_to_date_until_one_changes(self, two: Path) -> None:
        def written() -> list[int]:
            return [(two / "both" / s / "manifest.json").stat().st_mtime_ns for s in ("prepare", "train", "evaluate")]

        before = written()
        limbeck.run(texts(two / "both"), until="evaluate")
        assert written() == before
        limbeck.run(texts(two / "both", teacher={**bert(), "also": [bert(finetune={"max_steps": 9})]}), until="prepare")
        assert written()[0] != before[0]
        limbeck.run(texts(two / "both"), until="evaluate")

    def test_by_weight(self, two: Path, tmp_path: Path) -> None:
        teacher = ready(two, combine="weighted", weight=3, second={"weight": 1})
        limbeck.run(texts(tmp_path / "run", teacher=teacher), until="evaluate")
        wanted = 0.75 * probabilities(two / "one") + 0.25 * probabilities(two / "other")
        np.testing.assert_allclose(probabilities(tmp_path / "run"), wanted, atol=1e-6)

    def test_by_confidence(self, two: Path, tmp_path: Path) -> None:
        limbeck.run(texts(tmp_path / "run", teacher=ready(two, combine="confidence")), until="evaluate")
        each = np.stack([probabilities(two / "one"), probabilities(two / "other")])
        says = np.exp((each * np.log(each)).sum(-1, keepdims=True))
        np.testing.assert_allclose(probabilities(tmp_path / "run"), (each * says / says.sum(0)).sum(0), atol=1e-6)

    def test_by_domain(self, two: Path, tmp_path: Path) -> None:
        teacher = ready(two, combine="domain", domain="domain", second={"domains": ["u"]})
        limbeck.run(texts(tmp_path / "run", teacher=teacher), until="evaluate")
        of_second = np.array([i % 3 == 0 for i in range(30)])[:, None]
        wanted = np.where(of_second, probabilities(two / "other"), probabilities(two / "one"))
        np.testing.assert_allclose(probabilities(tmp_path / "run"), wanted, atol=1e-6)

    @pytest.mark.parametrize(
        ("fields", "said"),
        [
            ({"domain": "region", "second": {"domains": ["u"]}}, "no 'region'(.|\n)*allowed: domain"),
            ({"domain": "domain", "domains": ["k"], "second": {"domains": ["x"]}}, "no teacher(.|\n)*'u'(.|\n)*k, x"),
        ],
    )
    def test_a_domain_without_a_teacher_is_refused_before_anything_is_made(
        self, two: Path, tmp_path: Path, fields: dict[str, Any], said: str
    ) -> None:
        with pytest.raises(DataError, match=said):
            limbeck.run(texts(tmp_path / "run", teacher=ready(two, combine="domain", **fields)))
        assert not (tmp_path / "run" / "prepare").exists()

    @pytest.mark.parametrize(
        ("fields", "said"),
        [
            ({}, "needs `domain`"),
            ({"domain": "domain", "domains": ["u"], "second": {"domains": ["u"]}}, "two teachers have the domain u"),
        ],
    )
    def test_domains_that_make_no_sense(self, two: Path, tmp_path: Path, fields: dict[str, Any], said: str) -> None:
        with pytest.raises(RecipeError, match=said):
            limbeck.run(texts(tmp_path / "run", teacher=ready(two, combine="domain", **fields)))

    def test_with_classes_in_another_order_are_refused(self, two: Path, tmp_path: Path) -> None:
        teacher = ready(two)
        folder = tmp_path / "turned"
        folder.mkdir()
        for file in (two / "both" / "prepare" / "teacher-2").iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        config = json.loads((folder / "config.json").read_text())
        config["id2label"] = {"0": config["id2label"]["1"], "1": config["id2label"]["0"]}
        config["label2id"] = {name: int(i) for i, name in config["id2label"].items()}
        (folder / "config.json").write_text(json.dumps(config))
        teacher["also"] = [{"model": str(folder)}]
        with pytest.raises(ModelError, match="different orders"):
            limbeck.run(texts(tmp_path / "run", teacher=teacher))


class TestAnotherRecipe:
    def chain(self, folder: Path, **upstream: Any) -> dict[str, Any]:
        (folder / "assistant.yaml").write_text(yaml.safe_dump(images(folder / "assistant", **upstream)))
        return images(folder / "run", teacher={"recipe": str(folder / "assistant.yaml")}, student={"config": resnet(2)})

    def test_its_student_teaches_and_is_made_again_when_it_changes(self, tmp_path: Path) -> None:
        result = limbeck.run(self.chain(tmp_path), until="train")
        assert not (tmp_path / "assistant" / "evaluate").exists()
        stored = json.loads((tmp_path / "run" / "recipe.json").read_text())["teacher"]
        assert stored["recipe"] == str(tmp_path / "assistant.yaml")
        assert stored["model"] is None
        manifest = artifacts.load(tmp_path / "run" / "prepare").manifest
        assert manifest["model"]["name"] == str(tmp_path / "assistant" / "train" / "student")
        before = weights(result.student)
        limbeck.run(self.chain(tmp_path), until="train")
        assert artifacts.load(tmp_path / "run" / "prepare").manifest == manifest
        limbeck.run(self.chain(tmp_path, seed=1), until="train")
        assert any(not value.equal(before[key]) for key, value in weights(result.student).items())

    def test_a_recipe_does_not_teach_itself(self, tmp_path: Path) -> None:
        recipe = self.chain(tmp_path)
        (tmp_path / "run.yaml").write_text(yaml.safe_dump(recipe))
        with pytest.raises(RecipeError, match="its own teacher"):
            limbeck.run({**recipe, "teacher": {"recipe": str(tmp_path / "run.yaml")}})
        self.chain(tmp_path, teacher={"recipe": str(tmp_path / "run.yaml")})
        with pytest.raises(RecipeError, match="its own teacher"):
            limbeck.run(recipe)


def test_the_students_own_past_teaches(tmp_path: Path) -> None:
    plan = stage(max_steps=4, terms=[{"type": "cross_entropy"}, {"type": "kl"}])
    recipe = images(tmp_path / "run", teacher={"model": "moving-average", "decay": 0.5}, stages=[plan], baseline=True)
    result = limbeck.run(recipe)
    assert not (tmp_path / "run" / "prepare").exists()
    assert {score["model"] for score in result.scores} == {"student", "baseline"}
    assert result.report is not None
    assert "</html>" in result.report.read_text()
    lines = [json.loads(line) for line in (tmp_path / "run" / "train" / "steps.jsonl").read_text().splitlines()]
    # At first the teacher is the student, but for batch normalisation; then the student goes ahead of it.
    assert all(line["terms"]["kl"] > 0 for line in lines)
    student, alone = (weights(tmp_path / "run" / name / "student") for name in ("train", "baseline"))
    assert any(not value.equal(alone[key]) for key, value in student.items())


def test_a_teacher_that_remembers_says_the_same(two: Path, tmp_path: Path) -> None:
    plan = stage(max_steps=6)
    found = []
    for remember in (False, True):
        teacher = {"model": str(two / "both" / "prepare" / "teacher"), "remember": remember}
        result = limbeck.run(texts(tmp_path / f"{remember}", teacher=teacher, stages=[plan]), until="train")
        found.append((result.student / "model.safetensors").read_bytes())
    assert found[0] == found[1]


def test_a_teacher_cannot_remember_what_is_augmented(tmp_path: Path) -> None:
    plan = stage(augment=[{"type": "crop"}])
    teacher = {"config": resnet(4), "finetune": {"max_steps": 2}, "remember": True}
    with pytest.raises(RecipeError, match="cannot remember"):
        limbeck.run(images(tmp_path / "run", teacher=teacher, stages=[plan]))
    assert not (tmp_path / "run" / "prepare").exists()


def test_language_models_teach_together(tmp_path: Path) -> None:
    recipe = language(tmp_path / "run")
    recipe["teacher"]["also"] = [{"config": qwen(8), "finetune": {"max_steps": 1}}]
    limbeck.run(recipe, until="evaluate")
    notes = artifacts.load(tmp_path / "run" / "evaluate").manifest["notes"]
    assert any("the first one alone" in note for note in notes)


def test_a_first_row_that_is_too_long_is_passed_over(tmp_path: Path) -> None:
    rows = [{"prompt": "7" * (80 if i == 0 else 1) + str(i), "answer": f"it is {i}"} for i in range(12)]
    for name, part in (("train", rows[:9]), ("validation", rows[9:])):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, part)))
    data = {name: str(tmp_path / f"{name}.jsonl") for name in ("train", "validation")}
    recipe = language(tmp_path / "run", data=data, evaluate={"split": "validation", "max_new_tokens": 4})
    recipe["task"] |= {"max_length": 64, "answer_pattern": None}
    recipe["training"] |= {"global_batch_size": 2}
    limbeck.run(recipe, until="train")
    lost = artifacts.load(tmp_path / "run" / "train").manifest["counts"]["lost"]
    assert sum(each["train"].get("dropped_prompt_too_long", 0) for each in lost.values()) == 1


def test_a_memory_is_of_weights_in_one_type(two: Path) -> None:
    spec = Teacher(model=str(two / "both" / "prepare" / "teacher"), remember=True)
    settings = {"auto_class": "AutoModelForSequenceClassification", "settings": {}}
    whole, half, again = (
        _member(load_model(spec, dtype=dtype, **settings), spec, None, True)
        for dtype in (torch.float32, torch.bfloat16, torch.bfloat16)
    )
    assert isinstance(whole, RememberingTeacher)
    assert isinstance(half, RememberingTeacher)
    assert isinstance(again, RememberingTeacher)
    assert whole.said is not half.said
    assert half.said is again.said
