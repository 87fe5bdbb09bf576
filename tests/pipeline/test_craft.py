"""The craft of training, as a recipe says it: schedules, balance, gates, frozen parts, penalties, self-distillation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

import limbeck
from limbeck.core.errors import RecipeError
from tests.pipeline.recipes import BERT, images, language, stage, texts

HARD, SOFT = {"type": "cross_entropy"}, {"type": "kl", "temperature": 2}
HINT = {"type": "fitnets", "match": {"encoder.stages.1": "encoder.stages.1"}}


def lines_of(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "train" / "steps.jsonl").read_text().splitlines()]


def weights(output: Path) -> dict[str, Any]:
    return load_file(output / "train" / "student" / "model.safetensors")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    output = limbeck.run(images(tmp_path_factory.mktemp("teacher")), until="prepare").output
    return {"model": str(output / "prepare" / "teacher")}


def test_a_hint_then_distillation_with_all_crafts_then_labels(teacher: dict[str, Any], tmp_path: Path) -> None:
    """FitNets' order; soft targets grow from 0.3 to 0.7 as labels shrink; the last stage trains the head alone."""
    shares = [{"type": "linear", "start": start, "end": 1 - start} for start in (0.7, 0.3)]
    terms = [{**HARD, "weight": shares[0]}, {**SOFT, "weight": shares[1]}, HINT]
    stages = [
        stage(name="warm-up", terms=[HINT]),
        stage(max_steps=4, terms=terms, balance={"output": 3, "intermediate": 1}, gate={"by": "margin", "share": 0.5}),
        stage(name="labels", terms=[HARD], freeze=["resnet.*"]),
    ]
    training = {"global_batch_size": 16}
    limbeck.run(images(tmp_path / "run", teacher=teacher, stages=stages, training=training), until="train")
    lines = lines_of(tmp_path / "run")
    assert [line["stage"] for line in lines] == ["warm-up"] * 2 + ["distil"] * 4 + ["labels"] * 2
    assert [line.get("teacher_share") for line in lines] == [None] * 2 + [0.5] * 4 + [None] * 2
    assert set(lines[2]["terms"]) == {"cross_entropy", "kl", "fitnets"}
    layers = json.loads((tmp_path / "run" / "train" / "layers.json").read_text())
    assert [(row["stage"], row["term"]) for row in layers] == [("warm-up", "fitnets"), ("distil", "fitnets")]

    limbeck.run(images(tmp_path / "short", teacher=teacher, stages=stages[:2], training=training), until="train")
    before, after = weights(tmp_path / "short"), weights(tmp_path / "run")
    moved = {name for name, value in before.items() if not value.equal(after[name])}
    assert {name for name in moved if "running" not in name and "batches" not in name} <= {
        "classifier.1.weight",
        "classifier.1.bias",
    }


def test_gradient_checkpointing_changes_nothing_but_memory(tmp_path: Path) -> None:
    found = []
    for on in (False, True):
        training = {"gradient_checkpointing": on, "global_batch_size": 8}
        limbeck.run(language(tmp_path / f"{on}", training=training), until="train")
        found.append(lines_of(tmp_path / f"{on}"))
    assert [line["loss"] for line in found[0]] == pytest.approx([line["loss"] for line in found[1]], rel=1e-5)


def test_a_gradient_penalty_changes_the_gradient(tmp_path: Path) -> None:
    found = []
    for penalty in (0.0, 0.5):
        plan = stage(max_steps=1, gradient_penalty=penalty, terms=[HARD])
        student = {"config": {**BERT, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}}
        student["tokenizer"] = {"train": "bpe", "vocab_size": 300}
        fields = {"teacher": None, "student": student, "training": {"global_batch_size": 8}, "stages": [plan]}
        limbeck.run(texts(tmp_path / f"{penalty}", tmp_path / "rows.csv", **fields), until="train")
        found.append(lines_of(tmp_path / f"{penalty}")[0]["grad_norm"])
    assert found[0] != pytest.approx(found[1], rel=1e-3)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"training": {"precision": "bf16"}, "stages": [stage(gradient_penalty=0.1)]}, "too small for bf16"),
        ({"training": {"gradient_checkpointing": True}}, "ResNetForImageClassification has no gradient checkpointing"),
        ({"stages": [stage(terms=[HARD], gate={"share": 0.5})]}, "none of its terms asks a teacher"),
        ({"stages": [stage(terms=[{"type": "likelihood_matching"}])]}, "between language models"),
    ],
    ids=["penalty", "checkpointing", "gate", "tokenizers"],
)
def test_what_cannot_work_is_refused_before_the_teacher_is_trained(
    tmp_path: Path, fields: dict[str, Any], said: str
) -> None:
    with pytest.raises(RecipeError, match=said):
        limbeck.run(images(tmp_path / "run", **fields))
    assert not (tmp_path / "run" / "prepare").exists()


def test_shallow_layers_learn_from_the_final_answer(tmp_path: Path) -> None:
    """Without a teacher; the classifiers on the layers learn, and stay behind."""
    exits = {"type": "deep_to_shallow", "layers": ["encoder.stages.0"]}
    plan = stage(max_steps=25, learning_rate=1e-2, terms=[HARD, exits])
    result = limbeck.run(images(tmp_path / "run", teacher=None, stages=[plan]), until="evaluate")
    values = [line["terms"]["deep_to_shallow"] for line in lines_of(tmp_path / "run")]
    assert sum(values[-5:]) < 0.9 * sum(values[:5])
    assert not any("losses" in name for name in weights(tmp_path / "run"))
    assert result.score("student", "accuracy") > 0.1
    between = json.loads((tmp_path / "run" / "train" / "layers.json").read_text())[0]["between"]
    assert between == "classifier 4 -> 10"
