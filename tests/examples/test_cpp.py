"""The C++ example is built, with the engine that is there, and says what the student says."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from limbeck.exporters.onnx import Onnx
from limbeck.runtime.card import write_card
from limbeck.runtime.student import load_student
from tests.runtime.students import PICTURE, RESNET, rows, student

CPP = Path(__file__).parents[2] / "examples" / "cpp"


def engines() -> dict[str, str]:
    """The engines whose C++ headers are here, with what CMake is told: an unpacked archive of ONNX Runtime, named in
    the environment, and the one that pip's openvino brings."""
    found = {}
    if place := os.environ.get("ONNXRUNTIME_DIR"):
        found["onnxruntime"] = f"-DONNXRUNTIME_DIR={place}"
    try:
        from openvino.utils import get_cmake_path

        found["openvino"] = f"-DOpenVINO_DIR={get_cmake_path()}"
    except ImportError:
        pass
    return found


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture classifier as ONNX."""
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("cpp")
    card = replace(student(folder / "student", PICTURE, RESNET), temperature=0.5)
    (folder / "onnx").mkdir()
    write_card(Onnx().export(folder / "student", folder / "onnx", card), folder / "onnx")
    return folder / "onnx"


@pytest.mark.slow  # a C++ compiler takes its time
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_it_says_what_the_student_says(exported: Path, tmp_path: Path, engine: str) -> None:
    if engine not in engines():
        pytest.skip(f"no C++ headers of {engine}: set ONNXRUNTIME_DIR, or pip install openvino")
    if not shutil.which("cmake") or not shutil.which("c++"):
        pytest.skip("no cmake, or no C++ compiler")
    build = tmp_path / "build"
    subprocess.run(["cmake", "-S", CPP, "-B", build, engines()[engine]], check=True, capture_output=True, timeout=300)
    done = subprocess.run(["cmake", "--build", build], capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    samples = rows(PICTURE, 4)
    for sample, answer in zip(samples, load_student(exported).predict(samples), strict=True):
        sample.inputs["image"].save(tmp_path / "picture.pgm")
        said = subprocess.run([build / "classify", exported, tmp_path / "picture.pgm"], capture_output=True, text=True)
        assert said.returncode == 0, said.stderr
        label, confidence = said.stdout.split()
        assert label == answer.label
        assert float(confidence) == pytest.approx(answer.confidence, abs=1e-4)
    wrong = subprocess.run([build / "classify", exported, exported / "labels.json"], capture_output=True, text=True)
    assert wrong.returncode == 1
    assert "is no PGM or PPM" in wrong.stderr
