"""Every shipped recipe runs: two steps of it, with tiny models and few rows in the place of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

import limbeck
from limbeck.core.recipe import load_recipe
from tests.pipeline.recipes import QUICK, qwen, texts

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
TEMPLATES = sorted((ROOT / "src" / "limbeck" / "cli" / "templates").glob("*.yaml"))


def test_there_are_recipes_and_templates() -> None:
    assert {p.stem for p in RECIPES} >= {"quickstart", "reasoning", "banking77", "r1-to-qwen"}
    assert {p.stem for p in TEMPLATES} == {"causal-lm", "text-classification", "image-classification"}


@pytest.mark.parametrize("path", [*RECIPES, *TEMPLATES], ids=lambda p: p.stem)
def test_two_steps(path: Path, tmp_path: Path) -> None:
    recipe = load_recipe(path)
    settings = [f"output={tmp_path}/run", *(f"evaluate.{k}={v}" for k, v in QUICK.items()), "evaluate.max_samples=8"]
    settings += ["evaluate.max_new_tokens=4", "training.per_device_eval_batch_size=8"]
    for stage in recipe.stages:
        settings += [f"stages.{stage.name}.max_steps=2", f"stages.{stage.name}.global_batch_size=4"]
        settings += [f"stages.{stage.name}.per_device_train_batch_size=2", f"stages.{stage.name}.eval_steps=2"]
    if recipe.data.train.type() == "arithmetic":
        few = "{type: arithmetic, train_size: 64, validation_size: 16, test_size: 16}"
        settings += [f"data.train={few}", f"teacher.finetune.data.train={few}"]
    if recipe.teacher is not None and recipe.teacher.finetune is not None:
        settings += ["teacher.finetune.max_steps=2", "teacher.finetune.global_batch_size=4"]
    if recipe.task.type() == "text_classification":
        settings += _without_downloads(tmp_path, small=recipe.student.cuts.keys() > {"layers"})
    elif path.stem == "fashion-mnist":
        settings += ["data={train: digits}", "teacher.config.embedding_size=8", "teacher.config.hidden_sizes=[8,8,8,8]"]
    elif path.stem == "r1-to-qwen":
        settings += _pair_of_decoders(tmp_path)
    result = limbeck.run(path, settings)
    assert result.report is not None
    assert result.scores


def _without_downloads(folder: Path, small: bool) -> list[str]:
    """A tiny encoder, and a table of texts, in the place of the hub's."""
    made = limbeck.run(texts(folder / "teacher", folder / "rows.csv"), until="prepare").output
    rows = [f"data.{split}={folder}/rows.csv" for split in ("train", "test")]
    student = ["student={model: from-teacher, layers: [0, 1]}"]
    if small:
        student = ["student={model: from-teacher, layers: [0, 1], vocabulary: trim, embedding_size: 8}"]
        student += ["stages.distil.terms.multilevel.match={'albert_layer_groups.{0,1}.albert_layers.0': 'layer.{0,1}'}"]
        student += ["stages.distil.global_batch_size=8", "stages.distil.per_device_train_batch_size=4"]
    return [*rows, "data.label=label", f"teacher.model={made}/prepare/teacher", *student]


def _pair_of_decoders(folder: Path) -> list[str]:
    """A teacher whose vocabulary is padded further than the student's, as in the real pair."""
    from limbeck.tasks._text import train_bpe

    tokenizer = train_bpe(["How many? 12 and 30 #### 42"], 260, {"pad_token": "<pad>", "eos_token": "<eos>"})
    import transformers

    for name, rows in (("teacher", 320), ("student", 300)):
        config = {**qwen(16), "vocab_size": rows, "eos_token_id": tokenizer.eos_token_id}
        model_type = config.pop("model_type")
        made = transformers.AutoConfig.for_model(model_type, **config)
        transformers.AutoModelForCausalLM.from_config(made).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    row = '{"question": "How many are 1 and 2?", "answer": "1+2=3 #### 3"}\n'
    (folder / "rows.jsonl").write_text(row * 20)
    rows_at = [f"data.{split}={folder}/rows.jsonl" for split in ("train", "test")]
    return [*rows_at, f"teacher.model={folder}/teacher", f"student.model={folder}/student", "teacher.dtype=float32"]
