"""Students out of folders: cards, guesses, answers with calibrated confidence."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from limbeck.core.errors import DataError, ModelError
from limbeck.core.types import Sample
from limbeck.runtime.card import CARD, read_card, write_card
from limbeck.runtime.guess import card_of, student_folder, task_of
from limbeck.runtime.student import calibrated, load_student
from tests.runtime.students import BERT, LABELS, LANGUAGE, PICTURE, QWEN, RESNET, TEXT, rows, student


def test_answers_are_those_of_transformers(tmp_path: Path) -> None:
    write_card(replace(student(tmp_path, TEXT, BERT), temperature=2.0), tmp_path)
    served = load_student(tmp_path)
    samples = rows(TEXT, 7)
    answers = served.predict(samples, batch_size=3)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for sample, answer in zip(samples, answers, strict=True):
        with torch.no_grad():
            given = tokenizer(sample.inputs["text"], return_tensors="pt", truncation=True, max_length=24)
            expected = (model(**given).logits[0] / 2.0).softmax(-1).numpy()
        np.testing.assert_allclose(answer.probabilities, expected, atol=1e-6)
        assert answer.label == LABELS[int(expected.argmax())]
        assert answer.confidence == pytest.approx(float(expected.max()), abs=1e-6)


def test_pictures_are_answered(tmp_path: Path) -> None:
    write_card(student(tmp_path, PICTURE, RESNET), tmp_path)
    answers = load_student(tmp_path).predict(rows(PICTURE, 5), batch_size=2)
    assert len({round(answer.confidence, 6) for answer in answers}) > 1
    assert all(answer.probabilities.sum() == pytest.approx(1, abs=1e-5) for answer in answers)


def test_a_plain_folder_tells_what_it_is(tmp_path: Path) -> None:
    made = student(tmp_path, TEXT, BERT)
    card = card_of(tmp_path)
    assert (card.task["type"], card.labels, card.temperature) == ("text-classification", made.labels, 1.0)
    assert card.task["max_length"] == BERT["max_position_embeddings"]
    assert load_student(tmp_path).predict(rows(TEXT, 1))[0].label in LABELS
    (tmp_path / "run" / "train").mkdir(parents=True)
    student(tmp_path / "run" / "train" / "student", TEXT, BERT)
    assert student_folder(tmp_path / "run") == tmp_path / "run" / "train" / "student"


def test_a_folder_that_does_not_tell_is_refused(tmp_path: Path) -> None:
    student(tmp_path, TEXT, BERT)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "architectures": ["BertForMaskedLM"]}))
    with pytest.raises(ModelError, match="does not tell what its model does"):
        load_student(tmp_path)
    with pytest.raises(ModelError, match="no student in"):
        load_student(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("Qwen3ForCausalLM", "causal-lm"),
        ("GPT2LMHeadModel", "causal-lm"),
        ("BertForSequenceClassification", "text-classification"),
        ("ResNetForImageClassification", "image-classification"),
        ("BertForMaskedLM", None),
    ],
)
def test_the_task_of_a_class(name: str, task: str | None) -> None:
    assert task_of([name]) == task


def test_engine_and_format_must_fit(tmp_path: Path) -> None:
    card = student(tmp_path, TEXT, BERT)
    with pytest.raises(ModelError, match="onnxruntime does not run the format `pytorch`"):
        load_student(tmp_path, engine="onnxruntime")
    write_card(replace(card, format="abacus"), tmp_path)
    with pytest.raises(ModelError, match="nothing here runs the format `abacus`"):
        load_student(tmp_path)


@pytest.mark.parametrize("name", ["../model.onnx", "/etc/hostname", None, "."])
def test_a_card_that_names_a_file_elsewhere_is_refused(tmp_path: Path, name: str | None) -> None:
    pytest.importorskip("onnxruntime")
    (tmp_path / "model.onnx").write_bytes(b"")
    folder = tmp_path / "student"
    write_card(replace(student(folder, TEXT, BERT), format="onnx", file=name), folder)
    with pytest.raises(ModelError, match="outside of its folder"):
        load_student(folder)


@pytest.mark.parametrize("text", ["{", "[]", "[" * 9999, '{"task": {}}', '{"task": "t"}', '{"labels": ["a"]}'])
def test_a_damaged_card_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / CARD).write_text(text)
    with pytest.raises(ModelError, match="cannot be read"):
        read_card(tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", 0),
        ("temperature", -1.0),
        ("temperature", "2"),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("labels", "cat"),
        ("labels", [1, 2]),
        ("labels", []),
        ("labels", ["cat", "cat"]),
        ("file", 3),
        ("format", None),
        ("facts", []),
        ("task", {"type": 3}),
        ("colour", 1),
    ],
)
def test_a_card_that_says_what_no_card_says_is_refused(tmp_path: Path, name: str, value: object) -> None:
    said = {"task": TEXT, "labels": list(LABELS)}
    (tmp_path / CARD).write_text(json.dumps(said))
    assert read_card(tmp_path).labels == LABELS
    (tmp_path / CARD).write_text(json.dumps(said | {name: value}))
    with pytest.raises(ModelError, match="cannot be read") as refused:
        read_card(tmp_path)
    assert name in str(refused.value.got)


def test_a_card_keeps_what_it_is_told(tmp_path: Path) -> None:
    card = replace(student(tmp_path, TEXT, BERT), temperature=1.7, facts={"opset": 20})
    write_card(card, tmp_path)
    assert read_card(tmp_path) == card


def test_one_text_and_pairs_are_answered_together(tmp_path: Path) -> None:
    write_card(student(tmp_path, TEXT, BERT), tmp_path)
    served = load_student(tmp_path)
    single, pair = Sample("a", {"text": "one"}), Sample("b", {"text": "one", "text_pair": "two"})
    both = served.predict([single, pair, single])
    assert both[0].confidence == pytest.approx(both[2].confidence, abs=1e-6)
    assert both[0].confidence == pytest.approx(served.predict([single])[0].confidence, abs=1e-6)
    assert both[1].confidence == pytest.approx(served.predict([pair])[0].confidence, abs=1e-6)


@pytest.mark.parametrize("labels", [("cat", "dog"), (*LABELS, "fish")])
def test_labels_are_as_many_as_logits(tmp_path: Path, labels: tuple[str, ...]) -> None:
    write_card(replace(student(tmp_path, TEXT, BERT), labels=labels), tmp_path)
    with pytest.raises(ModelError, match="labels are not those of the model"):
        load_student(tmp_path).predict(rows(TEXT, 2))


def test_a_classifier_without_labels_is_refused(tmp_path: Path) -> None:
    write_card(replace(student(tmp_path, TEXT, BERT), labels=None), tmp_path)
    with pytest.raises(ModelError, match="names no classes"):
        load_student(tmp_path)


def test_threads_are_those_of_one_request(tmp_path: Path) -> None:
    write_card(student(tmp_path, TEXT, BERT), tmp_path)
    before, seen = torch.get_num_threads(), list[int]()
    torch.set_num_threads(3)
    try:
        served = load_student(tmp_path, threads=2)
        served.runner.model.register_forward_pre_hook(  # type: ignore[attr-defined]
            lambda *_: seen.append(torch.get_num_threads())
        )
        served.predict(rows(TEXT, 1))
        assert (seen, torch.get_num_threads()) == ([2], 3)
    finally:
        torch.set_num_threads(before)


def test_ids_beyond_the_vocabulary_are_an_error_of_ours(tmp_path: Path) -> None:
    write_card(student(tmp_path, TEXT, BERT), tmp_path)
    served = load_student(tmp_path)
    given = served.arrays(served.encode(rows(TEXT, 1)))
    with pytest.raises(ModelError, match="torch cannot run"):
        served.runner.run({**given, "input_ids": given["input_ids"] + 10_000})


def test_a_language_model_has_logits_but_no_classes(tmp_path: Path) -> None:
    write_card(student(tmp_path, LANGUAGE, QWEN), tmp_path)
    served = load_student(tmp_path)
    features = served.encode(rows(LANGUAGE, 2))
    assert served.logits(features).shape[:2] == (2, max(f.length for f in features))
    with pytest.raises(ModelError, match="has no classes"):
        served.predict(rows(LANGUAGE, 1))
    long = Sample("x", {"messages": [{"role": "user", "content": "word " * 90}]}, "3")
    with pytest.raises(DataError, match="cannot read row x"):
        served.encode([rows(LANGUAGE, 1)[0], long])


def test_large_logits_do_not_overflow() -> None:
    found = calibrated(np.asarray([[1e4, 0.0], [-1e4, 0.0]], np.float32), 0.5)
    np.testing.assert_allclose(found, [[1, 0], [0, 1]])
