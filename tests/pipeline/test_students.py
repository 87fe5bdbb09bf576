"""Students that are cut from their teacher, that learn by LoRA, or that have a tokenizer of their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file

import limbeck
from limbeck.core import artifacts
from limbeck.core.errors import ModelError, RecipeError
from tests.pipeline.recipes import BERT, language, qwen, stage, texts

STILL = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
CUT = {"model": "from-teacher"}
MATCHING = [{"type": "cross_entropy"}, {"type": "likelihood_matching"}]


def lines_of(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "train" / "steps.jsonl").read_text().splitlines()]


def student_config(output: Path) -> Any:
    return transformers.AutoConfig.from_pretrained(output / "train" / "student")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained encoder of two layers, and the rows it knows, in `rows.csv` beside it."""
    folder = tmp_path_factory.mktemp("encoder")
    recipe = texts(folder / "run", folder / "rows.csv", training={"global_batch_size": 8})
    recipe["teacher"]["config"] = {**BERT, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, **STILL}
    return limbeck.run(recipe, until="prepare").output / "prepare" / "teacher"


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained decoder with a tokenizer of 300 tokens."""
    recipe = language(tmp_path_factory.mktemp("decoder"))
    recipe["teacher"]["finetune"] = {"max_steps": 30, "learning_rate": 1e-2}
    return limbeck.run(recipe, until="prepare").output / "prepare" / "teacher"


def of(encoder: Path, output: Path, **fields: Any) -> dict[str, Any]:
    recipe = texts(output, encoder.parents[2] / "rows.csv", training={"global_batch_size": 8}, **fields)
    return {**recipe, "teacher": {"model": str(encoder)}}


class TestCut:
    @pytest.mark.parametrize(
        ("cut", "wanted"),
        [
            ({"layers": [1]}, {"num_hidden_layers": 1}),
            ({"hidden_size": 8}, {"hidden_size": 8}),
            ({"intermediate_size": 4}, {"intermediate_size": 4}),
            ({"num_attention_heads": 1, "hidden_size": 8}, {"num_attention_heads": 1}),
            ({"layers": [0], "vocabulary": "trim", "intermediate_size": 8}, {"num_hidden_layers": 1}),
        ],
        ids=lambda value: "-".join(value),
    )
    def test_student_is_smaller_and_says_where(
        self, encoder: Path, tmp_path: Path, cut: dict[str, Any], wanted: dict[str, Any]
    ) -> None:
        limbeck.run(of(encoder, tmp_path / "run", student={**CUT, **cut}), until="train")
        config = student_config(tmp_path / "run")
        assert {name: getattr(config, name) for name in wanted} == wanted
        table = json.loads((tmp_path / "run" / "train" / "parameters.json").read_text())
        assert sum(row["after"] for row in table) < sum(row["before"] for row in table)

    def test_embeddings_are_factorised(self, encoder: Path, tmp_path: Path) -> None:
        limbeck.run(of(encoder, tmp_path / "run", student={**CUT, "embedding_size": 4}), until="train")
        weights = load_file(tmp_path / "run" / "train" / "student" / "model.safetensors")
        assert any("embedding" in name and value.shape[-1] == 4 for name, value in weights.items())

    def test_a_trimmed_classifier_begins_as_its_teacher(self, encoder: Path, tmp_path: Path) -> None:
        """It reads other ids; the teacher must be given its own, or the two would not agree at once."""
        plan = stage(terms=[{"type": "kl"}, {"type": "hidden", "match": {"encoder.layer.1": "encoder.layer.1"}}])
        recipe = of(encoder, tmp_path / "run", student={**CUT, "vocabulary": "trim"}, stages=[plan])
        result = limbeck.run({**recipe, "training": {"global_batch_size": 8}}, until="evaluate")
        first = lines_of(tmp_path / "run")[0]["terms"]
        assert first["kl"] < 1e-6
        assert first["hidden"] < 1e-6
        kept = json.loads((result.student / "token_map.json").read_text())["old_ids"]
        assert len(kept) == student_config(tmp_path / "run").vocab_size < 300
        one, other = (transformers.AutoTokenizer.from_pretrained(folder) for folder in (result.student, encoder))
        assert [kept[i] for i in one("it is 3 today")["input_ids"]] == other("it is 3 today")["input_ids"]

    def test_a_trimmed_language_model_too(self, decoder: Path, tmp_path: Path) -> None:
        fields = {"teacher": {"model": str(decoder)}, "student": {**CUT, "vocabulary": "trim"}}
        recipe = language(tmp_path / "run", stages=[stage(terms=[{"type": "kl"}])], **fields)
        recipe["data"] = {"train": {"type": "arithmetic", "train_size": 2, "validation_size": 8, "test_size": 8}}
        recipe["training"] = {"global_batch_size": 2}
        limbeck.run(recipe, until="evaluate")
        assert lines_of(tmp_path / "run")[0]["terms"]["kl"] < 1e-6
        rows = student_config(tmp_path / "run").vocab_size
        assert rows < 300
        notes = artifacts.load(tmp_path / "run" / "train").manifest["notes"]
        assert any(f"{rows} of its 300 vocabulary rows" in note for note in notes)

    def test_baseline_is_cut_from_what_the_teacher_was_before(self, tmp_path: Path) -> None:
        fields = {"student": {**CUT, "layers": [0], "vocabulary": "trim"}, "baseline": True}
        recipe = texts(tmp_path / "run", tmp_path / "rows.csv", **fields)
        limbeck.run({**recipe, "stages": [stage(learning_rate=1e-12)]}, until="train")
        before, after = (
            load_file(tmp_path / "run" / name / "student" / "model.safetensors") for name in ("baseline", "train")
        )
        name = "bert.encoder.layer.0.intermediate.dense.weight"
        assert before[name].shape == after[name].shape
        assert not before[name].allclose(after[name], atol=1e-5)


class TestLora:
    def recipe(self, encoder: Path, output: Path, **fields: Any) -> dict[str, Any]:
        plan = stage(max_steps=4, learning_rate=1e-2, lr_scheduler_type="constant", **fields)
        student = {"model": str(encoder), "lora": {"r": 2, "lora_alpha": 4, "target_modules": ["query", "value"]}}
        recipe = of(encoder, output, student=student, stages=[plan])
        return {**recipe, "training": {"global_batch_size": 8, "save_steps": 2}}

    def test_only_what_was_asked_for_moves_and_the_folder_is_plain(self, encoder: Path, tmp_path: Path) -> None:
        result = limbeck.run(self.recipe(encoder, tmp_path / "run"), until="evaluate")
        before, after = (load_file(folder / "model.safetensors") for folder in (encoder, result.student))
        assert before.keys() == after.keys()
        moved = {name for name, value in before.items() if not value.equal(after[name])}
        assert moved
        assert all(".query.weight" in name or ".value.weight" in name or "classifier" in name for name in moved)
        assert any(".query.weight" in name for name in moved)
        rank = torch.linalg.matrix_rank(
            (after[q := "bert.encoder.layer.0.attention.self.query.weight"] - before[q]), rtol=1e-3
        )
        assert int(rank) <= 2

    def test_goes_on_after_a_stop(self, encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from limbeck.training import loop

        whole = limbeck.run(self.recipe(encoder, tmp_path / "whole"), until="train").student
        step, taken = loop.optimizer_step, []

        def stopping(*args: Any, **fields: Any) -> Any:
            taken.append(1)
            if len(taken) == 4:
                raise KeyboardInterrupt
            return step(*args, **fields)

        monkeypatch.setattr(loop, "optimizer_step", stopping)
        with pytest.raises(KeyboardInterrupt):
            limbeck.run(self.recipe(encoder, tmp_path / "parts"), until="train")
        monkeypatch.undo()
        parts = limbeck.run(self.recipe(encoder, tmp_path / "parts"), until="train").student
        assert [line["step"] for line in lines_of(tmp_path / "parts")] == [1, 2, 3, 4]
        assert (whole / "model.safetensors").read_bytes() == (parts / "model.safetensors").read_bytes()


class TestOtherTokenizer:
    def recipe(self, decoder: Path, output: Path, terms: list[dict[str, Any]], **fields: Any) -> dict[str, Any]:
        student = {"config": qwen(8), "tokenizer": {"train": "bpe", "vocab_size": 330}}
        plan = stage(terms=terms, max_steps=12, learning_rate=1e-2)
        return language(output, teacher={"model": str(decoder)}, student=student, stages=[plan], **fields)

    def test_stretches_are_matched(self, decoder: Path, tmp_path: Path) -> None:
        result = limbeck.run(self.recipe(decoder, tmp_path / "run", MATCHING, baseline=True), until="evaluate")
        terms = [line["terms"]["likelihood_matching"] for line in lines_of(tmp_path / "run")]
        assert sum(terms[-3:]) < 0.9 * sum(terms[:3])
        for step in ("train", "baseline"):
            notes = artifacts.load(tmp_path / "run" / step).manifest["notes"]
            assert any("both tokenizers cut" in note for note in notes)
        assert result.score("student", "perplexity") > 1
        sizes = [len(transformers.AutoTokenizer.from_pretrained(folder)) for folder in (result.student, decoder)]
        assert sizes[0] > sizes[1]

    def test_kl_needs_one_vocabulary_and_the_message_says_what_does_not(self, decoder: Path, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="likelihood_matching"):
            limbeck.run(self.recipe(decoder, tmp_path / "run", [{"type": "kl"}]), until="train")
        with pytest.raises(RecipeError, match="position by position"):
            limbeck.run(self.recipe(decoder, tmp_path / "run", [*MATCHING, {"type": "kl"}]))

    def test_is_for_language_models(self, encoder: Path, tmp_path: Path) -> None:
        with pytest.raises(RecipeError, match="between language models"):
            limbeck.run(of(encoder, tmp_path / "run", stages=[stage(terms=MATCHING)]))
