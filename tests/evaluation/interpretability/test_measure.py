"""All of it together: what the book holds, what is noted, and that models are left alone."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import (
    AlbertConfig,
    AlbertForSequenceClassification,
    LongformerConfig,
    LongformerForSequenceClassification,
)

from limbeck.core.recipe.evaluate import Evaluate, Interpretability
from limbeck.core.types import Sample
from limbeck.evaluation.book import Book
from limbeck.evaluation.interpretability import measure
from limbeck.evaluation.interpretability.survey import Survey
from limbeck.evaluation.interpretability.view import View, examined
from limbeck.models.compact.config import CompactConfig
from limbeck.models.compact.modeling import CompactForCausalLM
from limbeck.tasks._text import train_bpe
from limbeck.tasks.text_classification import TextClassification
from tests.evaluation.interpretability.rows import language, model_for, pictures, texts


def run(models: dict[str, Any], rows: Any, **more: Any) -> tuple[Book, list[str]]:
    book = Book(Evaluate(resamples=100))
    plan = Interpretability(max_samples=more.pop("max_samples", 6), examples=2)
    notes = measure(models, rows, plan, book, seed=0, batch_size=3, **more)
    json.dumps([book.rows(), book.details], allow_nan=False)
    return book, notes


def figures(book: Book) -> dict[tuple[str, str], float]:
    return {(score.model, score.name): score.value for score in book.scores}


def test_language_models() -> None:
    rows, codec = language()
    student = model_for("qwen3", codec, 1, num_hidden_layers=2)
    models = {"teacher": (model_for("llama", codec, 2), codec), "student": (student, codec)}
    models["baseline"] = (model_for("qwen3", codec, 3, num_hidden_layers=2), codec)
    hooks = sum(len(part._forward_hooks) for model, _ in models.values() for part in model.modules())
    book, notes = run(models, rows)
    assert notes == []
    assert hooks == sum(len(part._forward_hooks) for model, _ in models.values() for part in model.modules())
    assert {model.config._attn_implementation for model, _ in models.values()} == {"sdpa"}
    found = figures(book)
    names = {"attention_entropy", "attention_agreement", "cka_mean_best"}
    wanted = {(model, name) for model in models for name in names} - {("teacher", n) for n in names}
    assert set(found) == wanted | {("teacher", "attention_entropy")}
    cka = book.details["cka"]
    assert cka["n"] == 6
    assert cka["teacher_layers"] == [f"model.layers.{i}" for i in range(4)]
    assert torch.tensor(cka["cka"]).shape == (2, 4)
    assert found["student", "cka_mean_best"] == pytest.approx(torch.tensor(cka["cka"]).amax(1).mean().item())
    attention = book.details["attention"]
    assert torch.tensor(attention["agreement"]).shape == (2, 4)
    heads = torch.tensor(attention["student"]["entropy"])
    assert heads.shape == (2, 2)
    assert found["student", "attention_entropy"] == pytest.approx(heads.mean().item())
    best = torch.tensor(attention["agreement"]).amax(1).mean().item()
    assert found["student", "attention_agreement"] == pytest.approx(best)
    assert [(row["model"], len(row["layers"])) for row in book.details["lens"]] == [
        *[("teacher", 4)] * 2,
        *[("student", 2)] * 2,
        *[("baseline", 2)] * 2,
    ]
    assert len(book.details["divergence"]) == 2


def test_a_model_beside_itself_is_the_same_all_over() -> None:
    rows, codec = texts()
    model = model_for("bert", codec)
    book, _ = run({"teacher": (model, codec), "student": (model, codec)}, rows)
    cka, agree = (torch.tensor(x) for x in (book.details["cka"]["cka"], book.details["attention"]["agreement"]))
    torch.testing.assert_close(cka.diagonal(), torch.ones(4))
    torch.testing.assert_close(agree.diagonal(), torch.ones(4))
    assert "divergence" not in book.details


def test_the_figures_do_not_hang_on_the_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, codec = texts()
    models = {name: (model_for("bert", codec, seed), codec) for seed, name in enumerate(("teacher", "student"))}
    together, _ = run(models, rows)
    monkeypatch.setattr("limbeck.evaluation.interpretability.survey.MAPS_BYTES", 1)
    alone, _ = run(models, rows)
    assert figures(alone) == pytest.approx(figures(together), abs=1e-9)
    torch.testing.assert_close(torch.tensor(alone.details["cka"]["cka"]), torch.tensor(together.details["cka"]["cka"]))


def test_memory_bounds_the_rows_of_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, codec = texts()
    model = model_for("bert", codec)
    with examined(model):
        view = View("teacher", model, codec, rows)
        view.find_maps()
        longest = max(feature.length for feature in view.features.values())
        monkeypatch.setattr("limbeck.evaluation.interpretability.survey.MAPS_BYTES", 2 * 2 * 4 * longest**2)
        parts = list(Survey({"teacher": view}, list(view.features), [])._batches(100))
    assert len(parts[0]) == 2
    assert sum(len(part) for part in parts) == len(rows)
    assert view.features[parts[0][0]].length == longest


def test_convolutions_have_layers_alone() -> None:
    rows, codec = pictures()
    models = {"teacher": (model_for("vit", codec), codec), "student": (model_for("resnet", codec), codec)}
    book, notes = run(models, rows)
    assert set(figures(book)) == {("teacher", "attention_entropy"), ("student", "cka_mean_best")}
    assert book.details["cka"]["student_layers"] == ["resnet.encoder.stages.0", "resnet.encoder.stages.1"]
    assert [note.partition(":")[0] for note in notes] == [
        "attention of student (ResNetForImageClassification)",
        "logit lens of student (ResNetForImageClassification)",
    ]
    assert {row["model"] for row in book.details["lens"]} == {"teacher"}


def test_other_tokens_are_said_and_layers_compared_all_the_same() -> None:
    rows, codec = language()
    tokenizer = train_bpe([s.target for s in rows], 258, {"pad_token": "<pad>", "eos_token": "<eos>"})
    other = codec.task.codec(tokenizer, None)
    models = {"teacher": (model_for("llama", codec), codec), "student": (model_for("llama", other), other)}
    book, notes = run(models, rows)
    assert ("student", "cka_mean_best") in figures(book)
    assert "agreement" not in book.details["attention"]
    assert "divergence" not in book.details
    assert len(notes) == 2
    assert ["other positions" in note for note in notes] == [True, False]
    assert ["other tokens" in note for note in notes] == [False, True]


def test_our_own_models_give_no_maps() -> None:
    rows, codec = language()
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = CompactConfig(vocab_size=len(codec.processor), is_decoder=True, **size)
    student = CompactForCausalLM(config).eval()
    book, notes = run({"teacher": (model_for("llama", codec).float(), codec), "student": (student, codec)}, rows)
    assert ("student", "cka_mean_best") in figures(book)
    assert notes == ["attention of student (CompactForCausalLM): none of its 2 layers gave a map of all positions"]
    assert {row["model"] for row in book.details["lens"]} == {"teacher", "student"}


def test_packed_rows_are_looked_at_one_by_one() -> None:
    rows, codec = language()
    _, packing = language(packing=True)
    found = []
    for each in (codec, packing):
        models = {name: (model_for("llama", each, seed), each) for seed, name in enumerate(("teacher", "student"))}
        found.append(figures(run(models, rows)[0]))
    assert found[0] == pytest.approx(found[1])


def test_rows_are_drawn_and_examples_can_be_named() -> None:
    rows, codec = texts(12)
    models = {"student": (model_for("bert", codec), codec)}
    book, notes = run(models, rows, max_samples=5, examples=["11", "0", "7"])
    assert [row["id"] for row in book.details["lens"]] == ["0", "7"]
    assert [score.n for score in book.scores] == [5]
    assert [note for note in notes if "no teacher" in note] == notes
    assert "cka" not in book.details


def test_too_few_rows_for_cka_are_noted() -> None:
    rows, codec = texts(3)
    model = model_for("bert", codec)
    book, notes = run({"teacher": (model, codec), "student": (model, codec)}, rows)
    assert "cka" not in book.details
    assert notes == ["CKA of student with the teacher: 3 rows, and 4 are needed"]


def test_rows_of_one_token_have_nothing_to_choose_from() -> None:
    rows = [Sample(str(i), {"text": "abcd"[i]}, "xy"[i % 2]) for i in range(4)]
    codec = TextClassification().codec(train_bpe(["abcd"], 258, {"pad_token": "<pad>"}), ("x", "y"))
    models = {name: (model_for("bert", codec, seed), codec) for seed, name in enumerate(("teacher", "student"))}
    assert codec.encode(rows).features[0].length == 1
    book, notes = run(models, rows)
    assert {name for _, name in figures(book)} == {"cka_mean_best"}
    assert notes == [
        f"attention of {name} (BertForSequenceClassification): no position sees more than one" for name in models
    ]


def test_no_common_row_is_said() -> None:
    rows, codec = language()
    short = replace(codec.task, max_length=3).codec(codec.processor, None)
    models = {"teacher": (model_for("llama", codec), codec), "student": (model_for("llama", short), short)}
    book, notes = run(models, rows)
    assert (book.scores, book.details) == ([], {})
    assert notes == ["layers and attention: there is no row that all models can read"]


def test_layers_that_pad_on_their_own_are_said() -> None:
    rows, codec = texts()
    config = LongformerConfig(
        vocab_size=len(codec.processor),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        attention_window=[8, 8],
    )
    odd = LongformerForSequenceClassification(config).eval()
    book, notes = run({"teacher": (model_for("bert", codec), codec), "student": (odd, codec)}, rows)
    assert set(figures(book)) == {("teacher", "attention_entropy")}
    called = "student (LongformerForSequenceClassification)"
    assert notes == [
        f"attention of {called}: none of its 2 layers gave a map of all positions",
        f"layers of {called}: its layers hold other positions than the rows have",
    ]


def test_a_layer_that_runs_twice_is_said() -> None:
    rows, codec = texts()
    size = {"embedding_size": 8, "hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
    config = AlbertConfig(vocab_size=len(codec.processor), num_hidden_layers=2, **size)
    odd = AlbertForSequenceClassification(config).eval()
    book, notes = run({"teacher": (model_for("bert", codec), codec), "student": (odd, codec)}, rows)
    assert set(figures(book)) == {("teacher", "attention_entropy")}
    assert any(note.startswith("layers of student") and "was run 2 times" in note for note in notes)
    assert {row["model"] for row in book.details["lens"]} == {"teacher"}
