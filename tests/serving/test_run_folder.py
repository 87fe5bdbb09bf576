"""Which of a run's folders is served, by the engine that is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from limbeck.core.errors import ModelError
from limbeck.runtime.card import Card, write_card
from limbeck.runtime.student import engines_of
from limbeck.serving.folders import served

FORMATS = {"compress/student": "onnx", "export/openvino": "openvino", "train/student": "pytorch"}


def run_with(folder: Path, *inside: str) -> Path:
    (folder / "recipe.json").write_text("{}")
    for name in inside:
        (folder / name).mkdir(parents=True)
        write_card(Card(task={"type": "text-classification"}, format=FORMATS[name]), folder / name)
    return folder


@pytest.mark.parametrize(
    ("engine", "expected"),
    [
        ("auto", "compress/student"),
        ("onnxruntime", "compress/student"),
        ("openvino", "export/openvino"),
        ("torch", "train/student"),
    ],
)
def test_the_folder_that_is_made_for_the_engine_is_served(tmp_path: Path, engine: str, expected: str) -> None:
    run = run_with(tmp_path, *FORMATS)

    assert served(str(run), engine).folder == run / expected


def test_an_engine_that_runs_another_format_serves_it(tmp_path: Path) -> None:
    run = run_with(tmp_path, "compress/student", "train/student")

    assert "openvino" in engines_of("onnx")
    assert served(str(run), "openvino").folder == run / "compress/student"
    with pytest.raises(ModelError, match="nothing that can be served"):
        served(str(run), "abacus")
    assert engines_of("abacus") == ()
