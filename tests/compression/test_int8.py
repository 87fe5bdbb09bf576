"""8-bit integers: which layers become integers, which stay, and how far the answers move."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from limbeck.compression._graph import layers_of, read
from limbeck.compression._sensitivity import sensitivity
from limbeck.compression.int8 import Int8
from limbeck.core.errors import ModelError, RecipeError
from limbeck.exporters._graph import save
from limbeck.exporters.onnx import graph_of
from limbeck.runtime import Arrays
from limbeck.runtime.onnx_runner import OnnxRunner
from limbeck.runtime.student import codec_of
from tests.runtime.students import BERT, TEXT, rows, student


class Made:
    """A student as an ONNX graph, and rows for it."""

    def __init__(self, folder: Path, task: dict, config: dict):
        card = student(folder, task, config)
        self.path = folder / "model.onnx"
        save(graph_of(folder, card, 21), self.path)
        codec, runner = codec_of(folder, card), OnnxRunner(self.path, threads=1)
        features = codec.encode(rows(task, 16)).features
        found = [codec.collate(features[i : i + 4]).inputs for i in range(0, 16, 4)]
        self.rows: list[Arrays] = [{k: x.numpy() for k, x in f.items() if k in runner.inputs} for f in found]

    def logits(self, path: Path) -> np.ndarray:
        runner = OnnxRunner(path, threads=1)
        return np.concatenate([runner.run(batch)["logits"] for batch in self.rows])


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("text"), TEXT, BERT)


def floats(path: Path) -> int:
    """How many weights are still floats."""
    model = onnx.load(path)
    return sum(
        int(np.prod(t.dims))
        for t in model.graph.initializer
        if t.data_type == onnx.TensorProto.FLOAT and len(t.dims) > 1
    )


def test_layers_bear_the_names_of_their_modules(text: Made) -> None:
    names = list(layers_of(read(text.path)))

    assert "bert.embeddings.word_embeddings" in names
    assert "bert.encoder.layer.1.attention.self.query" in names
    assert names[-1] == "classifier"
    assert not any(name.endswith("attention.self") for name in names), "a product of activations has no weight"


@pytest.mark.parametrize("mode", ["dynamic", "static"])
def test_answers_stay_near(text: Made, tmp_path: Path, mode: str) -> None:
    told = Int8(mode=mode).compress(text.path, tmp_path / "int8.onnx", text.rows)

    before, after = text.logits(text.path), text.logits(tmp_path / "int8.onnx")
    count = len(layers_of(read(text.path)))
    assert told == {"mode": mode, "layers": count, "kept": [], "unchanged": []}
    assert floats(tmp_path / "int8.onnx") == 0
    assert 0 < np.abs(before - after).max() < 0.1 * np.abs(before).max()


def test_kept_layers_stay_floats(text: Made, tmp_path: Path) -> None:
    told = Int8(keep=("bert.embeddings", "classifier")).compress(text.path, tmp_path / "int8.onnx", text.rows)

    left = onnx.load(tmp_path / "int8.onnx").graph
    shapes = [tuple(t.dims) for t in left.initializer if t.data_type == onnx.TensorProto.FLOAT and len(t.dims) > 1]
    assert told["kept"] == [
        "bert.embeddings.position_embeddings",
        "bert.embeddings.token_type_embeddings",
        "bert.embeddings.word_embeddings",
        "classifier",
    ]
    assert len(shapes) == 4
    assert (64, 16) in shapes


def test_a_name_that_keeps_nothing_is_refused(text: Made, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"clasifier[\s\S]*did you mean 'classifier'"):
        Int8(keep=("clasifier",)).compress(text.path, tmp_path / "int8.onnx", text.rows)


def test_nothing_left_is_refused(text: Made, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="left to compress"):
        Int8(keep=("*",)).compress(text.path, tmp_path / "int8.onnx", text.rows)


def test_the_layer_with_an_outlier_suffers_most(text: Made, tmp_path: Path) -> None:
    model = onnx.load(text.path)
    node = next(n for n in model.graph.node if n.name == layers_of(model)["classifier"].nodes[0])
    weight = next(t for t in model.graph.initializer if t.name == node.input[1])
    values = onnx.numpy_helper.to_array(weight).copy()
    side = int(np.argmax(values.shape))  # of the features, not of the three classes
    hidden = [0] * values.ndim
    hidden[side] = 3
    values[tuple(hidden)] = 400.0  # all other weights of its scale become nothing
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    onnx.save_model(model, tmp_path / "sick.onnx")

    part = Int8(per_channel=False, mode="dynamic", keep=("bert.embeddings", "bert.encoder.layer.0"))
    left = {name for name in layers_of(model) if not name.startswith(part.keep)}
    found = sensitivity(part, tmp_path / "sick.onnx", tmp_path, text.rows, text.logits, None)

    assert found[0].layer == "classifier"
    assert found[0].kl > 2 * found[1].kl
    assert {each.layer for each in found} == left
    assert not (tmp_path / "one-layer" / "model.onnx").exists()
