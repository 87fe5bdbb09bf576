"""OpenVINO: its own files and ONNX files, with the student's answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from limbeck.core.errors import ModelError
from limbeck.exporters._parity import compare, refuse
from limbeck.exporters.openvino import Openvino
from limbeck.runtime.card import write_card
from limbeck.runtime.student import load_student
from tests.exporters.conftest import Exported
from tests.runtime.students import PICTURE, rows

pytest.importorskip("openvino")
pytest.importorskip("onnxscript")


@pytest.mark.parametrize("precision", ["same", "fp16"])
def test_the_round_trip(resnet: Exported, tmp_path: Path, precision: Any) -> None:
    folder, card, before = resnet.folder, resnet.card, resnet.before
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
    assert after.card.facts["opset"] == card.facts["opset"] == 20
    assert {path.name for path in tmp_path.iterdir()} >= {"model.xml", "model.bin", "labels.json"}


def test_it_runs_onnx_files(resnet: Exported) -> None:
    after = load_student(resnet.folder / "onnx", engine="openvino")
    samples = rows(PICTURE, 6)
    assert [a.label for a in after.predict(samples)] == [b.label for b in resnet.before.predict(samples)]


def test_answers_are_not_overwritten_by_the_next(resnet: Exported) -> None:
    served = load_student(resnet.folder / "onnx", engine="openvino")
    one, two = served.encode(rows(PICTURE, 2))
    first = served.logits([one])
    kept = first.copy()
    served.logits([two])
    assert (first == kept).all()


def test_a_damaged_file_is_an_error_of_ours(resnet: Exported, tmp_path: Path) -> None:
    write_card(Openvino().export(resnet.folder / "onnx", tmp_path, resnet.card), tmp_path)
    (tmp_path / "model.xml").write_text("<net")
    with pytest.raises(ModelError, match="OpenVINO cannot load"):
        load_student(tmp_path)
