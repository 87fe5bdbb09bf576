"""Every shipped recipe runs: two steps of it, with tiny models and few rows in the place of its own."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import limbeck
from limbeck.core import artifacts
from limbeck.core.recipe import load_recipe
from tests.pipeline.endpoint import Endpoint, serving
from tests.pipeline.recipes import QUICK, WHOLE, qwen, texts

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
TEMPLATES = sorted((ROOT / "src" / "limbeck" / "cli" / "templates").glob("*.yaml"))


def test_there_are_recipes_and_templates() -> None:
    assert {p.stem for p in RECIPES} >= {"quickstart", "reasoning", "banking77", "r1-to-qwen", "code", "ship"}
    assert {p.stem for p in TEMPLATES} == {"causal-lm", "text-classification", "image-classification"}


def right(body: dict[str, Any]) -> str:
    """The sum of a question's numbers, thought out; or the function that is asked for. Every second answer errs."""
    question, wrong = body["messages"][-1]["content"], body["seed"] % 2
    if name := re.search(r"def (\w+)\(n\)", question):
        given = name[1].removeprefix("plus_")
        return f"```python\ndef {name[1]}(n):\n    return n + {int(given) + wrong}\n```"
    a, b = map(int, re.findall(r"[0-9]+", question))
    return f"<think>\nI add {a} and {b}.\n</think>\n\n{a}+{b}={a + b}. #### {a + b + wrong}"


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with serving(right) as found:
        yield found


@pytest.mark.parametrize("path", [*RECIPES, *TEMPLATES], ids=lambda p: p.stem)
def test_two_steps(path: Path, tmp_path: Path, endpoint: Endpoint) -> None:
    recipe = load_recipe(path)
    # All that is looked at by default, once for each task: it is the same for any recipe of the task.
    plan = WHOLE if path.stem in ("quickstart", "reasoning", "banking77", "structured-reasoning") else QUICK
    settings = [f"output={tmp_path}/run", "evaluate.max_samples=8"]
    settings += [f"evaluate.{name}={json.dumps(value)}" for name, value in plan.items()]
    settings += ["evaluate.max_new_tokens=4", "training.per_device_eval_batch_size=8"]
    for stage in recipe.stages:
        settings += [f"stages.{stage.name}.max_steps=2", f"stages.{stage.name}.global_batch_size=4"]
        settings += [f"stages.{stage.name}.per_device_train_batch_size=2", f"stages.{stage.name}.eval_steps=2"]
    if recipe.data.train.type() == "arithmetic":
        few = "{type: arithmetic, train_size: 64, validation_size: 16, test_size: 16}"
        settings += [f"data.train={few}", f"teacher.finetune.data.train={few}"]
    if recipe.teacher is not None and recipe.teacher.finetune is not None:
        settings += ["teacher.finetune.max_steps=2", "teacher.finetune.global_batch_size=4"]
    if recipe.compress is not None:
        settings += ["compress.tolerance={drop: 1.0}"]  # few rows, and a student that knows nothing
    if recipe.task.type() == "text_classification":
        settings += without_downloads(tmp_path, small=recipe.student.cuts.keys() > {"layers"})
    elif path.stem == "fashion-mnist":
        settings += ["data={train: digits}", "teacher.config.embedding_size=8", "teacher.config.hidden_sizes=[8,8,8,8]"]
    elif path.stem == "r1-to-qwen":
        settings += _pair_of_decoders(tmp_path)
    elif recipe.generate:
        settings += _GENERATED[path.stem](tmp_path, json.dumps({"endpoint": endpoint.section()}))
    result = limbeck.run(path, settings)
    assert result.report is not None
    assert result.scores
    if recipe.generate:
        told = artifacts.read_manifest(result.output / "generate")["stages"]["basic"]
        assert {name: told[name] for name in ("rows", "dropped", "pass_at")} == _TOLD[path.stem]


def without_downloads(folder: Path, small: bool) -> list[str]:
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
    _decoders(folder)
    row = '{"question": "How many are 1 and 2?", "answer": "1+2=3 #### 3"}\n'
    (folder / "rows.jsonl").write_text(row * 20)
    rows_at = [f"data.{split}={folder}/rows.jsonl" for split in ("train", "test")]
    return [*rows_at, f"teacher.model={folder}/teacher", f"student.model={folder}/student", "teacher.dtype=float32"]


def _decoders(folder: Path) -> None:
    """A teacher and a student with one tokenizer, in folders."""
    import transformers

    from limbeck.tasks._text import train_bpe

    tokenizer = train_bpe(["How many? 12 and 30 #### 42"], 260, {"pad_token": "<pad>", "eos_token": "<eos>"})
    for name, rows in (("teacher", 320), ("student", 300)):
        config = {**qwen(16), "vocab_size": rows, "eos_token_id": tokenizer.eos_token_id}
        model_type = config.pop("model_type")
        made = transformers.AutoConfig.for_model(model_type, **config)
        transformers.AutoModelForCausalLM.from_config(made).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)


def _rows(folder: Path, rows: list[dict[str, Any]]) -> list[str]:
    """Sixteen rows to learn from, four to choose on and four to test on, and small models."""
    _decoders(folder)
    settings = [f"student.model={folder}/student", "task.max_length=256"]
    for split, part in (("train", rows[:16]), ("validation", rows[16:20]), ("test", rows[20:])):
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, part)))
        settings.append(f"data.{split}={folder}/{split}.jsonl")
    return settings


def _sums(folder: Path, writer: str) -> list[str]:
    """GSM8K's columns, and the endpoint as teacher."""
    rows = [{"question": f"How many are {i} and {i + 1}?", "answer": f"#### {2 * i + 1}"} for i in range(24)]
    return [*_rows(folder, rows), f"teacher={writer}"]


def _traces(folder: Path, writer: str) -> list[str]:
    """The columns that the recipe's head shows. One answer is wrong, and one thought has no end."""
    rows = []
    for i in range(24):
        said = {
            "role": "assistant",
            "reasoning_content": f"I add {i} and 4.",
            "content": f"\\boxed{{{i + 4 + (i == 5)}}}",
        }
        if i == 7:
            said = {"role": "assistant", "content": f"<think>\nI add {i} and"}
        asked = {"role": "user", "content": f"What is {i} plus 4?"}
        rows.append({"messages": [asked, said], "solution": str(i + 4)})
    return _rows(folder, rows)


def _programs(folder: Path, writer: str) -> list[str]:
    """HumanEval's columns; the endpoint writes in the teacher's place, which is too small to."""
    rows = []
    for i in range(24):
        name, test = f"plus_{i}", f"def check(candidate):\n    assert candidate(1) == {i + 1}\n"
        asked = f'def {name}(n):\n    """Add {i} to n."""\n'
        rows.append({"prompt": asked, "canonical_solution": f"    return n + {i}\n", "test": test, "entry_point": name})
    settings = [f"generate.writer={writer}", "generate.samples=2", f"teacher.model={folder}/teacher"]
    return [*_rows(folder, rows), *settings, "teacher.dtype=float32"]


_GENERATED = {"reasoning-api": _sums, "r1-traces": _traces, "code": _programs}
_TOLD = {
    "reasoning-api": {"rows": 32, "dropped": {"wrong": 32}, "pass_at": pytest.approx({"1": 1 / 2, "2": 5 / 6, "4": 1})},
    "r1-traces": {"rows": 14, "dropped": {"truncated": 1, "wrong": 1}, "pass_at": {"1": 14 / 16}},
    "code": {"rows": 16, "dropped": {"wrong": 16}, "pass_at": {"1": 0.5, "2": 1.0}},
}
"""Of the answers to each prompt half are right."""
