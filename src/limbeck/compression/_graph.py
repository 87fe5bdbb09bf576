"""The layers of an ONNX graph, by the names that they have in PyTorch."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from limbeck.core.errors import MissingExtra

if TYPE_CHECKING:
    import onnx

WEIGHTED = ("MatMul", "Gemm", "Conv", "Gather")
"""Operators that may multiply by, or look up, a weight."""

_SCOPES = "pkg.torch.onnx.name_scopes"
_WEIGHT, _WRAPPER = ".weight", "model."
"""What `exporters.onnx` holds the student in."""
_BUILT = ".MatMul.weight"
"""How onnxruntime-genai's builder ends the names of weights; the student is not held in anything there."""


def read(path: Path) -> onnx.ModelProto:
    """An ONNX model, without the shapes that its exporter noted: quantized tensors have others.

    Raises:
        MissingExtra: onnx is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise MissingExtra("compressing ONNX files", "onnx") from error
    model = onnx.load(path)
    del model.graph.value_info[:]
    return model


@dataclass
class Layer:
    """A layer that has a weight.

    Attributes:
        nodes: the operators that use it, by name, in the order of the graph.
        weights: what they multiply by or look up.
    """

    nodes: list[str] = field(default_factory=list)
    weights: set[str] = field(default_factory=set)


def layers_of(model: onnx.ModelProto) -> Mapping[str, Layer]:
    """Every layer that has a weight of floats, in the order of the graph.

    The name is the PyTorch module's: its weight's, or what the exporter notes in the node where the weight has been
    turned; nodes of other exporters go by their own names. A product of two activations has no weight and is no layer.
    """
    weights = floats_of(model) | {node.output[0] for node in model.graph.node if node.op_type == "Constant"}
    found: dict[str, Layer] = {}
    for node in model.graph.node:
        if node.op_type not in WEIGHTED:
            continue
        weight = node.input[0 if node.op_type == "Gather" else 1]
        if weight in weights:
            layer = found.setdefault(_layer(node, weight), Layer())
            layer.nodes.append(node.name)
            layer.weights.add(weight)
    return found


def floats_of(model: onnx.ModelProto) -> set[str]:
    """The names of weights that are floats."""
    import onnx

    kinds = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    return {tensor.name for tensor in model.graph.initializer if tensor.data_type in kinds}


def has_convolutions(model: onnx.ModelProto) -> bool:
    """Whether the model has convolutions, whose activations need ranges that are known before."""
    return any(node.op_type == "Conv" for node in model.graph.node)


def writes(model: onnx.ModelProto) -> bool:
    """Whether it is a language model that goes on from what it has read: onnxruntime-genai's."""
    return any(given.name.startswith("past_key_values.") for given in model.graph.input)


def _layer(node: onnx.NodeProto, weight: str) -> str:
    if weight.endswith(_BUILT):
        return weight.removesuffix(_BUILT).replace(".attn.", ".self_attn.")
    if weight.endswith(_WEIGHT):  # a convolution that a normalization was folded into bears the latter's scopes
        return weight.removesuffix(_WEIGHT).removeprefix(_WRAPPER)
    said = next((entry.value for entry in node.metadata_props if entry.key == _SCOPES), None)
    if said is None:
        return str(node.name)
    scopes = ast.literal_eval(said)  # ['', 'bert', 'bert.pooler', 'linear_3']: modules around it, then its own name
    name = str(scopes[-2]) if len(scopes) > 1 else ""
    return name.removeprefix(_WRAPPER) or str(node.name)
