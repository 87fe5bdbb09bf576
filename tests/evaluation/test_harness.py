"""lm-evaluation-harness: its tasks on our models, from local files alone."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml

from limbeck.core.errors import DataError, MissingExtra, RecipeError
from limbeck.core.recipe import Evaluate, Model
from limbeck.core.types import Sample
from limbeck.evaluation import harness
from limbeck.evaluation.book import Book, Score
from limbeck.tasks.causal_lm import CausalCodec, CausalLM

SIGNS = ["+", "-", "*", "/"]


@pytest.fixture(scope="module")
def read() -> tuple[Any, CausalCodec]:
    """A tiny decoder that prefers one answer to all others, whatever it is asked."""
    task, turns = CausalLM(), [{"role": "user", "content": "1 + 2 - 3 * 4 / 5 ="}]
    samples = [Sample("0", {"messages": turns}, "+ - * /")]
    spec = Model.model_validate({"config": {"model_type": "qwen3"}, "tokenizer": {"train": "bpe", "vocab_size": 300}})
    codec = task.codec(task.new_processor(spec, samples), None)
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "head_dim": 4}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64}
    config = transformers.Qwen3Config(**sizes, **heads, tie_word_embeddings=False, **codec.settings())
    model = transformers.Qwen3ForCausalLM(config).eval()
    return model, codec


def task_file(folder: Path, rows: list[dict[str, Any]], **fields: Any) -> Path:
    """A task with four choices over a local file."""
    data = folder / "rows.json"
    data.write_text("\n".join(map(json.dumps, rows)))
    config = {
        "task": "signs",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": SIGNS,
        "doc_to_target": "{{answer}}",
        "metric_list": [{"metric": "acc"}],
    }
    path = folder / "signs.yaml"
    path.write_text(yaml.safe_dump({**config, **fields}))
    return path


def rows(answers: list[int]) -> list[dict[str, Any]]:
    return [{"question": f"{i} =", "answer": answer} for i, answer in enumerate(answers)]


@torch.no_grad()
def best_sign(model: Any, codec: CausalCodec, question: str) -> int:
    """The sign that the model itself, asked without the harness, finds likeliest."""
    ids = codec.processor(question, add_special_tokens=False)["input_ids"]
    ends = [codec.processor(f" {sign}", add_special_tokens=False)["input_ids"] for sign in SIGNS]

    def likelihood(end: list[int]) -> float:
        logits = model(torch.tensor([ids + end])).logits[0].log_softmax(-1)
        return sum(float(logits[len(ids) - 1 + i, token]) for i, token in enumerate(end))

    return max(range(len(SIGNS)), key=lambda i: likelihood(ends[i]))


def test_a_task_over_a_local_file_is_scored_as_the_model_itself_would_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: tuple[Any, CausalCodec]
) -> None:
    pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed: limbeck[harness]")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    model, codec = read
    said = [best_sign(model, codec, f"{i} =") for i in range(8)]
    right = [each if i < 6 else (each + 1) % len(SIGNS) for i, each in enumerate(said)]
    path = task_file(tmp_path, rows(right))
    book = Book(Evaluate(confidence=0.9))
    harness.measure({"teacher": (model, codec), "student": (model, codec)}, [str(path)], book, batch_size=4)
    assert [(row.model, row.name) for row in book.scores] == [("teacher", "signs/acc"), ("student", "signs/acc")]
    row = book.scores[0]
    half = 1.6449 * math.sqrt(0.75 * 0.25 / 7)  # the harness's standard error has n - 1
    assert row == Score("teacher", "accuracy", "signs/acc", 0.75, row.low, row.high, 8, "share", "harness")
    assert row.low == pytest.approx(0.75 - half, abs=1e-4)
    assert row.high == 1.0, "0.75 + 0.27 is no share"
    before = harness.fingerprint([str(path)])
    assert harness.fingerprint([str(path)]) == before
    task_file(tmp_path, rows([0] * 8))
    assert harness.fingerprint([str(path)]) != before, "the task's file is as it was, its rows are not"
    gone = task_file(tmp_path, rows(right), dataset_kwargs={"data_files": {"test": str(tmp_path / "gone.json")}})
    with pytest.raises(DataError, match="cannot ask student"):
        harness.measure({"student": (model, codec)}, [str(gone)], book, batch_size=4)


def test_filters_and_scales_other_than_shares_keep_their_names() -> None:
    book = Book(Evaluate())
    found = {"alias": "maths", "sample_len": 5, "exact_match,strict": 0.5, "exact_match_stderr,strict": "N/A"}
    found |= {"perplexity,none": 7.0, "perplexity_stderr,none": 0.5, "acc,none": 1.0, "acc_stderr,none": math.nan}
    harness._take("student", "maths", found, book)
    by_name = {row.name: (row.value, row.low, row.high, row.unit) for row in book.scores}
    assert by_name["maths/exact_match,strict"] == (0.5, None, None, "share")
    value, low, high, unit = by_name["maths/perplexity"]
    assert (value, unit) == (7.0, "score")
    assert (low, high) == pytest.approx((7 - 0.98, 7 + 0.98), abs=1e-3)
    assert by_name["maths/acc"] == (1.0, None, None, "share"), "one row has no standard error"
    assert len(by_name) == 3


@pytest.mark.slow  # the harness reads all of its own tasks, some 10 s
def test_a_task_that_is_not_there_is_named_with_the_nearest(read: tuple[Any, CausalCodec]) -> None:
    pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed: limbeck[harness]")
    with pytest.raises(RecipeError, match=r"gsm8kk(.|\n)*did you mean 'gsm8k'"):
        harness.measure({"student": read}, ["gsm8kk"], Book(Evaluate()), batch_size=1)


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(MissingExtra, match=r"pip install 'limbeck\[harness\]'"):
        harness.fingerprint(["signs.yaml"])
