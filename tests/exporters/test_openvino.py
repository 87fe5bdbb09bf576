"""OpenVINO: its own files and ONNX files, with the student's answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from limbeck.core.errors import ModelError
from limbeck.exporters._parity import compare, refuse
from limbeck.exporters.onnx import Onnx
from limbeck.exporters.openvino import Openvino
from limbeck.runtime.card import Card, write_card
from limbeck.runtime.student import ServedStudent, load_student
from tests.runtime.students import PICTURE, RESNET, rows, student

pytest.importorskip("openvino")
pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Card, ServedStudent]:
    """A student as ONNX, which OpenVINO starts from."""
    folder = tmp_path_factory.mktemp("openvino")
    card = student(folder / "student", PICTURE, RESNET)
    write_card(card, folder / "student")
    (folder / "onnx").mkdir()
    made = Onnx().export(folder / "student", folder / "onnx", card)
    write_card(made, folder / "onnx")
    return folder, made, load_student(folder / "student")


@pytest.mark.parametrize("precision", ["same", "fp16"])
def test_the_round_trip(exported: Any, tmp_path: Path, precision: Any) -> None:
    folder, card, before = exported
    maker = Openvino(precision=precision)
    maker.check(card)
    write_card(maker.export(folder / "onnx", tmp_path, card), tmp_path)
    after = load_student(tmp_path, threads=1)
    assert after.runner.engine == "openvino"
    assert after.runner.inputs == before.runner.inputs
    parity = compare(before, after, rows(PICTURE, 12))
    refuse(parity, maker)
    assert parity.relative < (1e-5 if precision == "same" else 1e-2)
    assert after.card.precision == ("fp32" if precision == "same" else "fp16")
    assert {path.name for path in tmp_path.iterdir()} >= {"model.xml", "model.bin", "labels.json"}


def test_it_runs_onnx_files(exported: Any) -> None:
    folder, _, before = exported
    after = load_student(folder / "onnx", engine="openvino")
    samples = rows(PICTURE, 6)
    assert [a.label for a in after.predict(samples)] == [b.label for b in before.predict(samples)]


def test_answers_are_not_overwritten_by_the_next(exported: Any) -> None:
    folder, _, _ = exported
    served = load_student(folder / "onnx", engine="openvino")
    one, two = served.encode(rows(PICTURE, 2))
    first = served.logits([one])
    kept = first.copy()
    served.logits([two])
    assert (first == kept).all()


def test_a_damaged_file_is_an_error_of_ours(exported: Any, tmp_path: Path) -> None:
    folder, card, _ = exported
    write_card(Openvino().export(folder / "onnx", tmp_path, card), tmp_path)
    (tmp_path / "model.xml").write_text("<net")
    with pytest.raises(ModelError, match="OpenVINO cannot load"):
        load_student(tmp_path)
