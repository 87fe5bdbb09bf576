"""A student in another engine, measured as models in torch are: what it says, costs, and does not show."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from limbeck.core.errors import ModelError
from limbeck.core.recipe import Evaluate, Interpretability, Model, Speed
from limbeck.evaluation import efficiency, interpretability
from limbeck.evaluation.book import Book
from limbeck.evaluation.efficiency.memory import held_bytes
from limbeck.evaluation.predict import classify
from limbeck.evaluation.served import ServedModel, is_served
from limbeck.models.load import load_model
from limbeck.runtime.card import write_card
from limbeck.runtime.student import codec_of
from tests.runtime.students import PICTURE, RESNET, rows, student

WEIGHT = np.random.default_rng(0).normal(size=(1, 3)).astype(np.float32)


def graph() -> onnx.ModelProto:
    """Mean of the pixels times a row of three: no export by torch, which takes seconds."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["pixel_values"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weight"], ["logits"]),
    ]
    goes_in = helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["n", 1, "h", "w"])
    comes_out = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 3])
    weight = [numpy_helper.from_array(WEIGHT, "weight")]
    body = helper.make_graph(nodes, "mean", [goes_in], [comes_out], weight)
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder for torch, and one for ONNX Runtime."""
    torched, quick = (tmp_path_factory.mktemp(name) for name in ("torch", "quick"))
    for folder in (torched, quick):
        card = student(folder, PICTURE, RESNET)
    (quick / "model.safetensors").unlink()
    onnx.save_model(graph(), quick / "model.onnx")
    write_card(replace(card, format="onnx", file="model.onnx", temperature=2.0), quick)
    write_card(card, torched)
    return torched, quick


def load_model_in(folder: Path) -> Any:
    return load_model(Model(model=str(folder)), "AutoModelForImageClassification", settings={}).eval()


def asked(folder: Path) -> tuple[ServedModel, Any]:
    model = ServedModel(folder, threads=1)
    return model, codec_of(folder, model.student.card)


def test_folders_are_told_apart(made: tuple[Path, Path], tmp_path: Path) -> None:
    assert [is_served(folder) for folder in (*made, tmp_path)] == [False, True, False]


def test_it_says_what_its_graph_says(made: tuple[Path, Path]) -> None:
    model, codec = asked(made[1])
    features = codec.encode(rows(PICTURE, 7)).features

    found = classify(model, codec, features, 3, None)

    pixels = codec.collate(features).inputs["pixel_values"]
    wanted = torch.log_softmax(pixels.mean((1, 2, 3))[:, None] @ torch.from_numpy(WEIGHT), -1)
    assert found["prediction"] == [codec.label_names[i] for i in wanted.argmax(1)]
    np.testing.assert_allclose(found["probabilities"], wanted.exp(), atol=1e-6)  # without its card's temperature


def test_its_cost_beside_a_model_in_torch(made: tuple[Path, Path]) -> None:
    torched, quick = made
    model = load_model_in(torched)
    models = {"teacher": (model, asked(quick)[1]), "quick": asked(quick)}
    book = Book(Evaluate(resamples=100))

    notes = efficiency.measure(models, rows(PICTURE, 6), Speed(batch_sizes=[2], seconds=0.001), book, runs=2)

    found = {score.name: score.value for score in book.scores if score.model == "quick"}
    assert found["bytes_on_disk"] == (quick / "model.onnx").stat().st_size
    assert found.keys() >= {"latency_p50", "latency_p95", "latency_p99", "throughput", "speedup", "peak_memory"}
    assert not found.keys() & {"parameters", "bytes", "flops_per_row", "size_ratio"}
    assert "parameters and operations of quick: onnxruntime does not tell them" in notes
    assert "parameters" in {score.name for score in book.scores if score.model == "teacher"}


def test_it_stands_beside_models_that_are_looked_into(made: tuple[Path, Path]) -> None:
    torched, quick = made
    models = {"teacher": (load_model_in(torched), asked(quick)[1]), "quick": asked(quick)}
    book = Book(Evaluate(resamples=100))

    notes = interpretability.measure(models, rows(PICTURE, 4), Interpretability(), book, seed=0, batch_size=2)

    assert "layers of quick: onnxruntime does not show them" in notes
    assert not [score for score in book.scores if score.model == "quick"]


def test_what_it_holds_is_what_the_process_grows_by(made: tuple[Path, Path]) -> None:
    model, _ = asked(made[1])
    held: list[Any] = []

    def load() -> Any:
        held.append(np.ones(64 * 2**20, dtype=np.uint8))
        return held

    model.load = load

    assert held_bytes(model) == pytest.approx(64 * 2**20, rel=0.1)


def test_language_models_are_refused(made: tuple[Path, Path], tmp_path: Path) -> None:
    card = asked(made[1])[0].student.card
    write_card(replace(card, task={"type": "causal-lm"}, labels=None), tmp_path)

    with pytest.raises(ModelError, match="the language model in"):
        ServedModel(tmp_path, threads=1)
