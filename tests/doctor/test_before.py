"""Recipes with something wrong: it is found before anything is computed, by the check for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config

from limbeck.core.errors import ModelError
from limbeck.core.recipe import Recipe
from limbeck.doctor import needs
from limbeck.doctor._base import Finding
from limbeck.doctor.needs import Device
from limbeck.pipeline.doctor import _RecipePlan, examine_recipe
from tests.pipeline.recipes import QUICK, images, language, qwen, stage, texts

LONG = {"max_steps": 100, "warmup_ratio": 0.1}


def findings(recipe: dict[str, Any]) -> dict[str, list[Finding]]:
    """What is found, by check; `ok` left out."""
    found: dict[str, list[Finding]] = {}
    for each in examine_recipe(Recipe.model_validate(recipe)):
        if each.severity != "ok":
            found.setdefault(each.check, []).append(each)
    return found


def one(recipe: dict[str, Any], check: str) -> Finding:
    """The worst finding of a check."""
    return findings(recipe)[check][0]


def answers(output: Path, **fields: Any) -> dict[str, Any]:
    """A language model's recipe with nothing wrong."""
    return language(output, **{"stages": [stage(**LONG)], "evaluate": {**QUICK, "max_new_tokens": 64}, **fields})


def test_healthy_recipes(tmp_path: Path) -> None:
    for recipe in (answers(tmp_path / "a"), images(tmp_path / "b", stages=[stage(**LONG)])):
        found = examine_recipe(Recipe.model_validate(recipe))
        assert {each.severity for each in found} == {"ok", "note"}
        assert [each.check for each in found if each.severity == "note"] == ["time_and_cost"]
        told = next(each for each in found if each.reason == "stage distil fits into memory")
        assert "activations" in told.evidence
        assert "could not be added up" not in told.evidence
    assert not list(tmp_path.iterdir())  # nothing is computed, and nothing is left


def test_parameters_are_counted_without_weights(tmp_path: Path) -> None:
    recipe = texts(tmp_path / "run", tmp_path / "rows.csv")
    found = examine_recipe(Recipe.model_validate(recipe))
    told = next(each.evidence for each in found if each.reason == "parameters")
    assert told == "student 7,378, teacher 9,074"  # as the tables of a real run have it


def test_a_file_that_is_missing(tmp_path: Path) -> None:
    found = examine_recipe(Recipe.model_validate(answers(tmp_path / "run", data={"train": str(tmp_path / "no.csv")})))
    errors = [each for each in found if each.severity == "error"]
    assert [each.check for each in errors] == ["rows"]  # told once, though other checks want the rows too
    assert "no.csv" in errors[0].reason + errors[0].evidence


def test_a_column_that_is_missing(tmp_path: Path) -> None:
    recipe = texts(tmp_path / "run", tmp_path / "rows.csv")
    recipe["data"]["text"] = "txt"
    assert "txt" in one(recipe, "rows").reason


def test_rows_that_are_trained_and_tested_on(tmp_path: Path) -> None:
    found = findings(texts(tmp_path / "run", tmp_path / "rows.csv"))["rows"]
    assert [each.severity for each in found][:2] == ["warning", "warning"]
    assert any("36 of 36 training rows" in each.evidence for each in found)


def test_rows_that_are_cut(tmp_path: Path) -> None:
    found = findings(answers(tmp_path / "run", task={"type": "causal-lm", "max_length": 80}))
    assert [each.severity for each in found["lengths"]] == ["warning", "warning"]
    assert "truncated answers" in found["lengths"][0].evidence
    assert found["end_of_answer"][0].severity == "warning"
    assert "task.max_length" in str(found["end_of_answer"][0].change)


def test_more_tokens_than_a_model_has_positions(tmp_path: Path) -> None:
    few = {"config": {**qwen(8), "max_position_embeddings": 32}}
    found = one(answers(tmp_path / "run", student=few), "lengths")
    assert found.severity == "error"
    assert "positions" in found.reason


def test_answers_that_the_evaluation_would_cut(tmp_path: Path) -> None:
    found = one(answers(tmp_path / "run", evaluate={**QUICK, "max_new_tokens": 8}), "lengths")
    assert found.severity == "warning"
    assert found.change == "evaluate.max_new_tokens=34"


def test_layers_that_are_not_there(tmp_path: Path) -> None:
    terms = [{"type": "hidden", "match": {"model.layers.7": "model.layers.0"}}]
    recipe = answers(tmp_path / "run", stages=[stage(**LONG, terms=terms)])
    found = [each for each in examine_recipe(Recipe.model_validate(recipe)) if each.severity == "error"]
    assert len(found) == 1
    assert "model.layers.7" in found[0].reason + found[0].evidence
    terms[0]["match"] = {"model.layers.0": "model.layers.0"}
    found = examine_recipe(Recipe.model_validate(answers(tmp_path / "b", stages=[stage(**LONG, terms=terms)])))
    told = next(each for each in found if each.check == "layer_matches")
    assert told.evidence == "model.layers.0 <- model.layers.0"


def test_vocabularies_that_differ(tmp_path: Path) -> None:
    own = {"config": qwen(8), "tokenizer": {"train": "bpe", "vocab_size": 280}}
    found = one(answers(tmp_path / "run", student=own), "vocabulary")
    assert found.severity == "error"
    assert "different vocabularies" in found.reason


def test_a_tokenizer_that_does_not_know_the_words(tmp_path: Path) -> None:
    vocabulary = {"<pad>": 0, "<eos>": 1, "<unk>": 2, "the": 3, "has": 4}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"pad_token": "<pad>", "eos_token": "<eos>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=made, **special).save_pretrained(tmp_path / "words")
    teacher = {"config": qwen(16), "tokenizer": str(tmp_path / "words"), "finetune": {"max_steps": 2}}
    found = findings(answers(tmp_path / "run", teacher=teacher))
    assert found["vocabulary"][0].severity == "warning"
    assert "unknown" in found["vocabulary"][0].evidence
    assert found["template"][0].severity == "error"
    assert "do not spell the answer" in found["template"][0].reason


def test_a_folder_without_weights(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    Qwen3Config(**{k: v for k, v in qwen(8).items() if k != "model_type"}).save_pretrained(folder)
    student = {"model": str(folder), "tokenizer": {"train": "bpe", "vocab_size": 300}}
    found = one(answers(tmp_path / "run", student=student), "models")
    assert found.severity == "error"
    assert "holds no weights" in found.reason


def test_a_student_that_is_larger_than_its_teacher(tmp_path: Path) -> None:
    found = one(answers(tmp_path / "run", student={"config": qwen(32)}), "models")
    assert found.severity == "warning"
    assert found.evidence == "student 18,944, teacher 7,168"


def test_a_layer_that_the_teacher_has_not(tmp_path: Path) -> None:
    found = findings(answers(tmp_path / "run", student={"model": "from-teacher", "layers": [0, 9]}))
    assert list(found) == ["models"]
    assert "[9]" in found["models"][0].evidence


def test_fields_of_a_config_that_do_not_fit_each_other(tmp_path: Path) -> None:
    config = {"model_type": "bert", "hidden_size": 15, "num_attention_heads": 2, "num_hidden_layers": 1}
    recipe = texts(tmp_path / "run", tmp_path / "rows.csv", student={"config": config})
    recipe["stages"][0]["terms"].append({"type": "hidden", "match": {"bert.encoder.layer.0": "bert.encoder.layer.0"}})
    errors = [each for each in examine_recipe(Recipe.model_validate(recipe)) if each.severity == "error"]
    assert [each.check for each in errors] == ["models"]
    assert "not a multiple" in errors[0].evidence


def test_models_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is told, once, and not asked for again and again."""
    asked = []

    def load_config(spec: Any) -> None:
        asked.append(spec.model)
        raise ModelError(f"the model '{spec.model}' cannot be found", got="no network", fix="check the name")

    for place in ("pipeline.doctor", "pipeline._ahead", "doctor.before.models"):
        monkeypatch.setattr(f"limbeck.{place}.load_config", load_config)
    recipe = answers(tmp_path / "run", teacher={"model": "org/one"}, student={"model": "org/two"})
    found = examine_recipe(Recipe.model_validate(recipe))
    errors = [each for each in found if each.severity == "error"]
    assert [(each.check, each.reason.split("'")[1]) for each in errors] == [
        ("models", "org/two"),
        ("models", "org/one"),
    ]
    assert len(asked) <= 5


def test_too_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("limbeck.doctor.before.memory.device", lambda: Device("a small device", 50_000))
    found = one(answers(tmp_path / "run"), "memory")
    assert found.severity == "error"
    assert "50.0 kB free on a small device" in found.evidence
    assert "gradient_checkpointing" in str(found.change)


def test_memory_of_several_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("limbeck.doctor.before.memory.device", lambda: Device("a device", 10**9, 4))
    recipe = Recipe.model_validate(answers(tmp_path / "run"))
    found = [each for each in examine_recipe(recipe) if each.check == "memory"]
    assert [each.reason for each in found][1] == "stage finetune on 4 devices, a process for each"
    plan = _RecipePlan(recipe, False)
    whole, shared = (needs.training_bytes(plan, plan.student, recipe.stages[0], n) for n in (1, 4))
    assert whole is not None
    assert shared is not None
    assert shared["weights"] == whole["weights"]
    assert shared["activations"] < whole["activations"] / 2  # type: ignore[operator]


def test_memory_of_attention_that_is_written_out(tmp_path: Path) -> None:
    plans = [
        _RecipePlan(Recipe.model_validate(answers(tmp_path / "run", student={"config": qwen(8), **attention})), False)
        for attention in ({}, {"attn_implementation": "eager"})
    ]
    fused, eager = (needs.training_bytes(p, p.student, p.recipe.stages[0]) for p in plans)
    assert fused is not None
    assert eager is not None
    assert eager["activations"] > fused["activations"]  # type: ignore[operator]


@pytest.mark.parametrize(("cache", "each"), [({"k": 8}, 48), ({"type": "full"}, 600), ({}, 100), ({"k": 999}, 1800)])
def test_the_recordings_size(tmp_path: Path, cache: dict[str, Any], each: int) -> None:
    recipe = Recipe.model_validate(answers(tmp_path / "run", cache=cache))
    plan = _RecipePlan(recipe, False)
    rows = plan.encoded(recipe.stages[0], plan.student).features
    labels = sum(label != -100 for row in rows for label in row.values["labels"])
    assert needs.recorded_bytes(plan) == each * labels  # of 300 classes


def test_what_a_training_keeps_in_memory(tmp_path: Path) -> None:
    """Against the numbers themselves: a linear student's activations are its input."""
    import torch
    from torch import nn

    from limbeck.core.types import Batch

    class Linear(nn.Module):
        main_input_name, dtype = "pixel_values", torch.float32

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(10, 3)

        def get_output_embeddings(self) -> None:
            return None

        def forward(self, pixel_values: torch.Tensor) -> Any:
            return type("Said", (), {"logits": self.layer(pixel_values)})

    with torch.device("meta"):
        model = Linear()
    batch = Batch(("a",) * 8, {"pixel_values": torch.zeros(8, 10)}, torch.zeros(8, dtype=torch.long))
    assert needs._kept(model, batch) == 8 * 10 * 4


def test_too_little_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 1_000})
    monkeypatch.setattr("limbeck.doctor.before.disk.shutil.disk_usage", lambda path: usage)
    found = one(answers(tmp_path / "run"), "disk")
    assert found.severity == "error"
    assert "1.0 kB free" in found.evidence


def test_what_a_text_model_keeps_grows_with_its_length(tmp_path: Path) -> None:
    """The polynomial through a few lengths gives what a pass over the whole length keeps."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    from limbeck.core.types import Batch

    config = BertConfig(vocab_size=50, hidden_size=16, num_attention_heads=2, num_hidden_layers=2, intermediate_size=32)
    config._attn_implementation = "eager"
    with torch.device("meta"):
        model = BertForSequenceClassification(config)
    ids, labels = torch.zeros(3, 40, dtype=torch.long), torch.zeros(3, dtype=torch.long)
    whole = {"input_ids": ids, "attention_mask": torch.zeros(3, 1, 40, 40)}
    kept = needs._kept(model, Batch(("a",) * 3, whole, labels))
    assert needs._of_text(model, Batch(("a",) * 3, {"input_ids": ids}, labels)) == kept
