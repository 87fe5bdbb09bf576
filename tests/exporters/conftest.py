"""Students as ONNX, made once: an export by torch takes seconds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from limbeck.runtime.card import Card, write_card
from limbeck.runtime.student import ServedStudent, load_student
from tests.runtime.students import BERT, PICTURE, RESNET, TEXT, student


@dataclass(frozen=True)
class Exported:
    """A student and its export.

    Attributes:
        folder: holds both, as `student` and `onnx`.
        before: the student, on one thread.
        after: the export loaded back, on one thread.
        card: of the export.
    """

    folder: Path
    before: ServedStudent
    after: ServedStudent
    card: Card


def exported(folder: Path, task: dict[str, Any], config: dict[str, Any], **fields: Any) -> Exported:
    """A new student as ONNX."""
    from limbeck.exporters.onnx import Onnx

    made = Onnx(**fields)
    card = replace(student(folder / "student", task, config), temperature=1.5)
    write_card(card, folder / "student")
    (folder / "onnx").mkdir()
    made.check(card)
    written = made.export(folder / "student", folder / "onnx", card)
    write_card(written, folder / "onnx")
    return Exported(
        folder, load_student(folder / "student", threads=1), load_student(folder / "onnx", threads=1), written
    )


def _once(factory: pytest.TempPathFactory, task: dict[str, Any], config: dict[str, Any], **fields: Any) -> Exported:
    for needed in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(needed)
    return exported(factory.mktemp("exported"), task, config, **fields)


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A text classifier."""
    return _once(tmp_path_factory, TEXT, BERT, opset=19)


@pytest.fixture(scope="session")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A picture classifier."""
    return _once(tmp_path_factory, PICTURE, RESNET)
