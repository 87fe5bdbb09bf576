"""Every format that a student may have, from its folder to an answer over HTTP and gRPC's own tensors."""

from __future__ import annotations

import io
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from limbeck.compression.int8 import Int8
from limbeck.core.types import Sample
from limbeck.exporters.onnx import Onnx
from limbeck.exporters.openvino import Openvino
from limbeck.runtime.card import write_card
from limbeck.runtime.student import load_student
from tests.runtime.students import BERT, PICTURE, RESNET, TEXT, rows, student
from tests.serving.serving import TOKEN, Serving, running

httpx = pytest.importorskip("httpx")
for _needed in ("onnxruntime", "onnxscript", "openvino"):
    pytest.importorskip(_needed)
FORMATS = {
    "torch": ("torch", "fp32"),
    "onnx": ("onnxruntime", "fp32"),
    "int8": ("onnxruntime", "int8"),
    "openvino": ("openvino", "fp32"),
}
"""Engine and precision of each."""
KINDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "text": (TEXT, {**BERT, "num_hidden_layers": 1}),
    "picture": (PICTURE, {**RESNET, "depths": [1], "hidden_sizes": [4]}),
}
"""Tasks, and the smallest students for them."""


def make(root: Path, task: dict[str, Any], config: dict[str, Any]) -> None:
    """One student in all formats, by the exporters and the compressor themselves."""
    card = student(root / "torch", task, config)
    write_card(card, root / "torch")
    for name, source, exporter in (("onnx", "torch", Onnx()), ("openvino", "onnx", Openvino())):
        (root / name).mkdir()
        card = exporter.export(root / source, root / name, card)
        write_card(card, root / name)
    shutil.copytree(root / "onnx", root / "int8")
    served = load_student(root / "onnx")
    seen = [served.arrays([feature]) for feature in served.encode(rows(task, 8))]
    (root / "int8/model.onnx").unlink()
    Int8().compress(root / "onnx/model.onnx", root / "int8/model.onnx", seen)
    write_card(replace(served.card, precision="int8"), root / "int8")


@pytest.fixture(scope="module", params=["text", pytest.param("picture", marks=pytest.mark.slow)])
def kind(request: pytest.FixtureRequest) -> str:
    """Exports take seconds each: those of pictures are made with the slow tests."""
    return str(request.param)


@pytest.fixture(scope="module")
def folders(kind: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp(kind)
    make(root, *KINDS[kind])
    return {name: root / name for name in FORMATS}


@pytest.fixture(scope="module")
def serving(folders: dict[str, Path]) -> Iterator[Serving]:
    with running(folders) as made:
        yield made


@pytest.fixture(scope="module")
def client(serving: Serving) -> Iterator[Any]:
    headers = {"authorization": f"Bearer {TOKEN}"}
    with httpx.Client(base_url=serving.url, headers=headers, timeout=20) as made:
        yield made


def png(sample: Sample) -> bytes:
    buffer = io.BytesIO()
    sample.inputs["image"].save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_answers_as_its_folder_does(
    serving: Serving, client: Any, folders: dict[str, Path], kind: str, name: str
) -> None:
    samples, student = rows(KINDS[kind][0], 5), load_student(folders[name])
    with serving.models.lease(name) as leased:
        assert (leased.student.runner.engine, leased.student.card.precision) == FORMATS[name]
    expected = [student.predict([sample])[0] for sample in samples]
    for sample, right in zip(samples, expected, strict=True):
        if kind == "text":
            answer = client.post("/predict", json={"text": sample.inputs["text"], "model": name, "top_k": 3})
        else:
            answer = client.post("/predict", data={"model": name, "top_k": "3"}, files={"image": png(sample)})
        assert answer.status_code == 200, answer.text
        found = answer.json()["predictions"][0]
        assert found["label"] == right.label
        assert found["confidence"] == pytest.approx(right.confidence, abs=1e-4)
        assert len(found["top"]) == 3


def test_8_bits_are_other_numbers(folders: dict[str, Path], kind: str) -> None:
    """Else the test above would not tell the formats apart."""
    a, b = (load_student(folders[name]) for name in ("onnx", "int8"))
    features = a.encode(rows(KINDS[kind][0], 4))
    assert not np.allclose(a.logits(features[:1]), b.logits(features[:1]), atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["picture"], indirect=True)
def test_numbers_of_any_size_harm_nobody_in_8_bits(serving: Serving, client: Any) -> None:
    """A range that is found anew for each batch would be that of the largest row."""
    pixels = np.asarray(Image.open(io.BytesIO(png(rows(PICTURE, 1)[0]))), dtype=np.float32)[None, None] / 255
    huge = np.full_like(pixels, 1e30)

    def asked(array: Any) -> Any:
        tensor = {
            "name": "pixel_values",
            "datatype": "FP32",
            "shape": list(array.shape),
            "data": array.ravel().tolist(),
        }
        return client.post("/v2/models/int8/infer", json={"inputs": [tensor]})

    alone = asked(pixels).json()["outputs"]
    runner = serving.runner("int8")
    del runner.batches[:]
    runner.gate.clear(), runner.entered.clear()
    with ThreadPoolExecutor(9) as pool:
        first = pool.submit(asked, pixels)
        assert runner.entered.wait(10)  # the others wait together now
        others = [pool.submit(asked, huge if i % 2 else pixels) for i in range(8)]
        with serving.models.lease("int8") as model:
            while model.engine.waiting < 8:
                time.sleep(0.001)
        runner.gate.set()
        found = [each.result() for each in [first, *others[::2]]]
    assert all(each.json()["outputs"] == alone for each in found)
    assert runner.batches == [1] * 9
