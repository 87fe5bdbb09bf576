"""What passes are tried on: students of a few thousand parameters, by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from limbeck.runtime.card import Card, write_card
from tests.runtime.students import BERT, LANGUAGE, QWEN, RESNET, TEXT, student

KINDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "text": (TEXT, BERT),
    "picture": ({"type": "image-classification"}, RESNET),
    "language": ({**LANGUAGE, "max_length": 40}, QWEN),
}


def made(folder: Path, kind: str) -> Card:
    """A student in a folder, with its card."""
    card = student(folder, *KINDS[kind])
    write_card(card, folder)
    return card


def graph(width: int = 8, classes: int = 3, notes: bool = True) -> Any:
    """A graph that reads tokens: two residual sums with norms behind them and a GELU.

    Args:
        width: of each position.
        classes: of the logits.
        notes: tell the shapes within, as exporters do.
    """
    from onnx import TensorProto, helper, numpy_helper

    draw = np.random.default_rng(0)

    def held(name: str, *shape: int) -> Any:
        return numpy_helper.from_array(draw.normal(size=shape).astype(np.float32), name)

    def free(name: str, kind: int, *shape: str | int) -> Any:
        return helper.make_tensor_value_info(name, kind, list(shape))

    def node(kind: str, takes: str, gives: str, **fields: Any) -> Any:
        return helper.make_node(kind, takes.split(), [gives], name=f"{kind}_{gives}", **fields)

    nodes = [
        node("Gather", "table input_ids", "x"),
        node("MatMul", "x w1", "before"),
        # As attention does it: a shape that is computed, by which engines lose sight of what it is.
        node("Shape", "input_ids", "rows"),
        node("Concat", "rows width", "shape", axis=0),
        node("Reshape", "before shape", "a"),
        node("Add", "a x", "b"),
        node("LayerNormalization", "b scale shift", "c", axis=-1),
        node("MatMul", "c w2", "d"),
        node("Add", "d bias", "e"),
        node("Gelu", "e", "f"),
        node("Add", "f c", "g"),
        node("LayerNormalization", "g scale shift", "h", axis=-1),
        node("Gather", "h first", "i", axis=1),  # as BERT does it, so that padding says nothing
        node("MatMul", "i head", "logits"),
    ]
    weights = [held("table", 300, width), held("w1", width, width), held("w2", width, width), held("bias", width)]
    weights += [held("scale", width), held("shift", width), held("head", width, classes)]
    weights += [numpy_helper.from_array(np.array(n), name) for n, name in ((0, "first"), ([width], "width"))]
    inner = [free(name, TensorProto.FLOAT, "B", "T", width) for name in "xabcdefgh"] if notes else []
    made = helper.make_graph(
        nodes,
        "student",
        [free(name, TensorProto.INT64, "B", "T") for name in ("input_ids", "attention_mask")],
        [free("logits", TensorProto.FLOAT, "B", classes)],
        weights,
        value_info=inner,
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def graph_student(folder: Path, **fields: Any) -> Card:
    """A student that is such a graph."""
    import onnx

    card = replace(made(folder, "text"), format="onnx", file="model.onnx")
    (folder / "model.safetensors").unlink()
    onnx.save(graph(**fields), folder / "model.onnx")
    write_card(card, folder)
    return card
