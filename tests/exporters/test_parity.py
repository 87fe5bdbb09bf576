"""Exports are compared with the student logit by logit, and refused with the figures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers

from limbeck.compression.int8 import Int8
from limbeck.core.errors import ModelError
from limbeck.exporters._base import copy_beside
from limbeck.exporters._parity import Parity, compare, probabilities, refuse, spread
from limbeck.exporters.hugging_face import HuggingFace
from limbeck.exporters.onnx import Onnx
from limbeck.runtime._base import Arrays, Runner
from limbeck.runtime.card import write_card
from limbeck.runtime.student import ServedStudent, load_student
from limbeck.tasks import Feature
from tests.exporters.conftest import Exported
from tests.runtime.students import BERT, LANGUAGE, QWEN, TEXT, rows, student


class Shifted(Runner):
    """A runner that adds to one row's logits, or cuts them."""

    engine = "shifted"

    def __init__(self, inner: Runner, by: float, cut: int = 0):
        self.inner, self.by, self.cut, self.inputs, self.outputs = inner, by, cut, inner.inputs, inner.outputs

    def run(self, inputs: Arrays) -> dict[str, Any]:
        logits = self.inner.run(inputs)["logits"].copy()
        logits[..., 0] += self.by
        return {"logits": logits[..., self.cut :]}


def served(folder: Path, task: dict[str, Any], config: dict[str, Any]) -> ServedStudent:
    write_card(student(folder, task, config), folder)
    return load_student(folder, threads=1)


@pytest.mark.parametrize(("task", "config"), [(TEXT, BERT), (LANGUAGE, QWEN)], ids=["text", "language"])
def test_differences_are_found(tmp_path: Path, task: dict[str, Any], config: dict[str, Any]) -> None:
    model = served(tmp_path, task, config)
    samples = rows(task, 10)
    same = compare(model, model, samples)
    assert same.relative < 1e-5
    assert same.same_answers == 1
    other = ServedStudent(model.card, model.codec, Shifted(model.runner, 0.01))
    found = compare(model, other, samples)
    assert found.max_difference == pytest.approx(0.01, rel=1e-2)
    features = model.encode(samples)
    assert found.answers == (10 if model.labels else sum(f.length for f in features))
    assert found.largest == pytest.approx(max(np.abs(model.logits([f])).max() for f in features), rel=1e-4)
    far = compare(model, ServedStudent(model.card, model.codec, Shifted(model.runner, 1e4)), samples)
    expected = np.concatenate([model.logits([f])[0].reshape(-1, model.logits([f]).shape[-1]) for f in features])
    assert far.same_answers == pytest.approx((expected.argmax(1) == 0).mean())


def test_another_shape_and_no_numbers_are_refused(tmp_path: Path) -> None:
    model = served(tmp_path, TEXT, BERT)
    with pytest.raises(ModelError, match="another shape"):
        compare(model, ServedStudent(model.card, model.codec, Shifted(model.runner, 0, cut=1)), rows(TEXT, 2))
    with pytest.raises(ModelError, match="no numbers"):
        compare(model, ServedStudent(model.card, model.codec, Shifted(model.runner, float("nan"))), rows(TEXT, 2))


def test_what_is_let_pass() -> None:
    def parity(difference: float, same: float) -> Parity:
        return Parity(64, 64, difference, 10.0, same, "r3")

    refuse(parity(0.009, 1.0), HuggingFace())
    for wrong in (parity(0.011, 1.0), parity(0.0, 0.98)):
        with pytest.raises(ModelError) as refused:
            refuse(wrong, HuggingFace())
        assert "same answers" in str(refused.value.got)
        assert "row r3" in str(refused.value.got)
    refuse(parity(5.0, 0.98), HuggingFace(precision="bf16"))
    with pytest.raises(ModelError):
        refuse(parity(5.0, 0.96), HuggingFace(precision="bf16"))
    refuse(parity(0.0, 0.5), HuggingFace(same_answers=0.5))
    with pytest.raises(ModelError, match="not kept"):
        refuse(parity(0.1, 1.0), HuggingFace(precision="bf16", max_difference=0.005))


def test_rows_of_all_lengths_are_chosen() -> None:
    features = [Feature(str(i), length, {}) for i, length in enumerate([5, 1, 9, 3, 7, 1, 1, 1])]
    assert spread(features, 3) == [1, 2, 3]
    assert spread(features, 99) == list(range(8))


def test_probabilities_leave_the_temperature_out(tmp_path: Path) -> None:
    model = served(tmp_path, TEXT, BERT)
    warm = ServedStudent(replace(model.card, temperature=7.0), model.codec, model.runner)
    features = model.encode(rows(TEXT, 5))
    np.testing.assert_allclose(probabilities(warm, features, 2), probabilities(model, features, 5), atol=1e-6)


def test_a_hugging_face_folder_is_copied_in_another_type(tmp_path: Path) -> None:
    model = served(tmp_path / "a", TEXT, BERT)
    (tmp_path / "b").mkdir()
    card = HuggingFace(precision="bf16").export(tmp_path / "a", tmp_path / "b", model.card)
    write_card(card, tmp_path / "b")
    assert card.precision == "bf16"
    loaded = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "b")
    assert str(loaded.dtype) == "torch.bfloat16"
    parity = compare(model, load_student(tmp_path / "b"), rows(TEXT, 6))
    assert 0 < parity.relative < 0.1


def test_integers_are_compared_in_the_same_company(bert: Exported, tmp_path: Path) -> None:
    """A dynamic range is that of the batch: the same graph answers a row by the rows beside it."""
    small = tmp_path / "small"
    small.mkdir()
    Int8(mode="dynamic").compress(bert.folder / "onnx" / "model.onnx", small / "model.onnx", [])
    copy_beside(bert.folder / "student", small, bert.card)
    written = replace(bert.card, precision="int8")
    write_card(written, small)
    (tmp_path / "onnx").mkdir()
    write_card(Onnx().export(small, tmp_path / "onnx", written), tmp_path / "onnx")
    one, other = load_student(small, threads=1), load_student(tmp_path / "onnx", threads=1)
    samples = rows(TEXT, 24)

    apart = [one.logits([each])[0] for each in one.encode(samples)]
    assert np.abs(np.stack(apart) - one.logits(one.encode(samples))).max() > 1e-3, "company tells"
    found = compare(one, other, samples)

    assert found.max_difference < 1e-6
    refuse(found, Onnx())
