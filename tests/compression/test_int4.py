"""Integers in blocks: which products become them, that they are those that are learned, and tables that share them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from limbeck.compression._base import Compressor
from limbeck.compression._graph import layers_of, read
from limbeck.compression._sensitivity import sensitivity
from limbeck.compression.int4 import Int4
from limbeck.compression.int8 import Int8
from limbeck.core.errors import ModelError, RecipeError
from limbeck.exporters.onnxruntime_genai import OnnxruntimeGenai
from limbeck.models import quantize
from limbeck.runtime.genai import GenaiRunner
from tests.runtime.students import LANGUAGE, QWEN, student

V, D, F = 24, 64, 96
FIRST, LAST = "model.layers.0.self_attn.qkv_proj", "model.layers.0.mlp.down_proj"


def product(given: str, told: str, name: str) -> onnx.NodeProto:
    place = re.sub(r"\.(?!\d)", "/", name)
    return helper.make_node("MatMul", [given, f"{name}.MatMul.weight"], [told], f"/{place}/MatMul")


def built(path: Path, weights: Mapping[str, np.ndarray], tied: bool = True) -> Path:
    """A graph with names as onnxruntime-genai's builder gives them: a table, two products, and a head."""
    node = helper.make_node
    table = ["turned"] if tied else ["model.embed_tokens.weight"]
    nodes = [node("Transpose", ["lm_head.MatMul.weight"], ["turned"], "/model/embed_tokens/Transpose", perm=[1, 0])]
    nodes = nodes if tied else []
    nodes += [
        node("Gather", [*table, "input_ids"], ["x"], "/model/embed_tokens/Gather", axis=0),
        node(
            "MatMul", ["x", "model.layers.0.attn.qkv_proj.MatMul.weight"], ["y"], "/model/layers.0/attn/qkv_proj/MatMul"
        ),
        node(
            "MatMul", ["y", "model.layers.0.mlp.down_proj.MatMul.weight"], ["z"], "/model/layers.0/mlp/down_proj/MatMul"
        ),
        node("MatMul", ["z", "lm_head.MatMul.weight"], ["logits"], "/lm_head/MatMul"),
        node("Identity", ["past_key_values.0.key"], ["present.0.key"], "/past"),
    ]
    tensors = [numpy_helper.from_array(x, name) for name, x in weights.items()]
    value = helper.make_tensor_value_info
    past = [value(name, TensorProto.FLOAT, ["n"]) for name in ("past_key_values.0.key", "present.0.key")]
    given = [value("input_ids", TensorProto.INT64, ["batch", "positions"]), past[0]]
    told = [value("logits", TensorProto.FLOAT, ["batch", "positions", V]), past[1]]
    graph = helper.make_graph(nodes, "decoder", given, told, tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return path


def drawn(tied: bool = True) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    shapes = {"lm_head": (D, V), "model.layers.0.attn.qkv_proj": (D, F), "model.layers.0.mlp.down_proj": (F, D)}
    found = {f"{name}.MatMul.weight": draw.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    return found if tied else {**found, "model.embed_tokens.weight": draw.normal(size=(V, D)).astype(np.float32)}


def logits(path: Path) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    given = {"input_ids": np.arange(V).reshape(2, -1), "past_key_values.0.key": np.zeros(1, np.float32)}
    return session.run(["logits"], given)[0]


def weights_in(path: Path, bits: int) -> dict[str, np.ndarray]:
    """What the integers of a graph say, by the name of the weight, [inputs, outputs]."""
    there = {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
    found = {}
    for name in (name.removesuffix(f"_Q{bits}") for name in there if name.endswith(f"_Q{bits}")):
        packed = there[f"{name}_Q{bits}"].astype(np.int32)
        digits = np.stack([packed & 15, packed >> 4], -1).reshape(*packed.shape[:2], -1) if bits == 4 else packed
        values = (digits - 2 ** (bits - 1)) * there[f"{name}_scales"].reshape(*packed.shape[:2], 1)
        found[name] = values.reshape(len(packed), -1).T.astype(np.float32)
    return found


@pytest.mark.parametrize(("part", "bits", "share"), [(Int4(), 4, 0.2), (Int8(), 8, 0.02)], ids=["int4", "int8"])
def test_products_become_integers_and_answers_stay_near(
    tmp_path: Path, part: Compressor, bits: int, share: float
) -> None:
    """A language model's graph is what `int8` takes in blocks of itself."""
    source, target = built(tmp_path / "model.onnx", drawn()), tmp_path / "small.onnx"

    told = part.compress(source, target, [])

    before, after = logits(source), logits(target)
    assert (told["layers"], told["kept"], told["unchanged"]) == (3, [], [])
    assert 0 < np.abs(before - after).max() < share * np.abs(before).max()
    for name, said in weights_in(target, bits).items():
        assert 0 < np.abs(said - drawn()[name]).max() <= np.abs(drawn()[name]).max() / 2 ** (bits - 1)
    assert target.stat().st_size < source.stat().st_size * (0.35 if bits == 4 else 0.5)


@pytest.mark.parametrize("bits", [4, 8])
def test_a_tied_table_is_looked_up_in_the_integers_of_the_head(tmp_path: Path, bits: int) -> None:
    source, target = built(tmp_path / "model.onnx", drawn()), tmp_path / "small.onnx"
    (Int4() if bits == 4 else Int8()).compress(source, target, [])
    said = weights_in(target, bits)

    same = tmp_path / "same.onnx"
    built(same, said)

    assert "lm_head.MatMul.weight" not in {tensor.name for tensor in onnx.load(target).graph.initializer}
    # Products round what goes into them, to 8 bits.
    assert np.abs(logits(target) - logits(same)).max() < 0.03 * np.abs(logits(same)).max()


def test_another_table_stays(tmp_path: Path) -> None:
    source, target = built(tmp_path / "model.onnx", drawn(tied=False), tied=False), tmp_path / "small.onnx"

    told = Int4().compress(source, target, [])

    assert told["unchanged"] == ["embed_tokens"]
    table = {t.name: numpy_helper.to_array(t) for t in onnx.load(target).graph.initializer}["model.embed_tokens.weight"]
    np.testing.assert_array_equal(table, drawn(tied=False)["model.embed_tokens.weight"])


@pytest.mark.parametrize("size", [16, 32])
def test_what_was_learned_as_integers_is_not_moved(tmp_path: Path, size: Any) -> None:
    grid = quantize.Int4(size)
    learned = {name: grid(torch.from_numpy(x.T.copy())).T.contiguous().numpy() for name, x in drawn().items()}
    source = built(tmp_path / "model.onnx", learned)

    Int4(group_size=size).compress(source, tmp_path / "small.onnx", [])

    said = weights_in(tmp_path / "small.onnx", 4)
    assert len(said) == 3
    for name, x in said.items():
        np.testing.assert_allclose(x, learned[name], rtol=1e-6, atol=1e-7)


def test_kept_layers_stay_floats(tmp_path: Path) -> None:
    source, target = built(tmp_path / "model.onnx", drawn()), tmp_path / "small.onnx"

    told = Int4(keep=("lm_head", "*.mlp.*")).compress(source, target, [])

    assert told["kept"] == ["lm_head", LAST]
    assert list(weights_in(target, 4)) == ["model.layers.0.attn.qkv_proj.MatMul.weight"]
    with pytest.raises(RecipeError, match=r"no layer that would become integers: lm_haed[\s\S]*'lm_head'"):
        Int4(keep=("lm_haed",)).compress(source, target, [])
    with pytest.raises(ModelError, match="no layer of the student is left"):
        Int4(keep=("*",)).compress(source, target, [])


def test_a_layer_that_has_learned_to_be_integers_suffers_least(tmp_path: Path) -> None:
    weights, learned = drawn(), "model.layers.0.attn.qkv_proj.MatMul.weight"
    weights[learned] = quantize.Int4(32)(torch.from_numpy(weights[learned].T.copy())).T.contiguous().numpy()
    source = built(tmp_path / "model.onnx", weights)

    found = sensitivity(Int4(), source, tmp_path, [], lambda path: logits(path).reshape(-1, V), title=None)

    assert list(layers_of(read(source))) == [FIRST, LAST, "lm_head"]
    assert {each.layer for each in found[:2]} == {LAST, "lm_head"}
    assert 0 < found[2].kl < found[1].kl / 3


@pytest.mark.slow  # onnxruntime-genai's builder takes seconds to start
def test_it_is_what_the_builder_itself_writes(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime_genai")
    card = student(tmp_path / "student", LANGUAGE, {**QWEN, "hidden_size": 64, "intermediate_size": 64, "head_dim": 32})
    made, given = {}, {"input_ids": np.arange(3, 23)[None], "attention_mask": np.ones((1, 20), np.int64)}
    for precision in ("fp32", "int4"):
        (tmp_path / precision).mkdir()
        built_card = OnnxruntimeGenai(precision=precision).export(tmp_path / "student", tmp_path / precision, card)
        made[precision] = GenaiRunner(tmp_path / precision, built_card).run(given)["logits"]
    Int4().compress(tmp_path / "fp32" / "model.onnx", tmp_path / "small.onnx", [])
    (tmp_path / "fp32" / "model.onnx.data").unlink()
    (tmp_path / "small.onnx").replace(tmp_path / "fp32" / "model.onnx")

    found = GenaiRunner(tmp_path / "fp32", built_card).run(given)["logits"]

    assert np.abs(made["fp32"] - made["int4"]).max() > 0.01
    np.testing.assert_allclose(found, made["int4"], rtol=1e-5, atol=1e-6)
