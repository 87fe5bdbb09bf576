"""What is done to a graph after torch has written it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from limbeck.core.errors import ModelError

if TYPE_CHECKING:
    import onnx

TWO_GB = 2**31 - 2**20
"""What protobuf holds in one file, with some room."""


def without_traces(model: onnx.ModelProto) -> None:
    """Remove notes of the exporter: where in which source file each operator came from, and the shapes between them.

    Where it sees these shapes, ONNX Runtime merges residual sums with the norms behind them into an operator
    (SkipLayerNormalization) that costs more on CPUs than the two: docs/optimize.md.
    """
    del model.metadata_props[:]
    model.doc_string = ""
    for graph in [model.graph, *model.functions]:
        del graph.metadata_props[:]
        graph.doc_string = ""
        for node in graph.node:
            del node.metadata_props[:]
            node.doc_string = ""
        del graph.value_info[:]
    for value in [*model.graph.input, *model.graph.output, *model.graph.initializer]:
        del value.metadata_props[:]
        value.doc_string = ""


def strip(path: Path) -> None:
    """Remove those notes from a file: they are a third of a small student's bytes."""
    import onnx

    model = onnx.load(path)
    without_traces(model)
    save(model, path)


def save(model: onnx.ModelProto, path: Path) -> None:
    """Write a model: one file, and beside it `model.onnx.data` where the weights are beyond 2 GB."""
    import onnx

    if model.ByteSize() < TWO_GB:
        onnx.save_model(model, str(path))
        return
    onnx.save_model(model, str(path), save_as_external_data=True, location=f"{path.name}.data", size_threshold=1024)


def operators(model: onnx.ModelProto) -> Counter[str]:
    """How often each operator is there."""
    return Counter(node.op_type for node in model.graph.node)


def optimised(path: Path) -> None:
    """Put ONNX Runtime's own rewriting of a graph in the graph's place: it is loaded quicker, and by it alone.

    Raises:
        ModelError: the result would not be one file.
    """
    import onnxruntime

    if (path.parent / f"{path.name}.data").exists():
        raise ModelError("a graph beyond 2 GB cannot be optimised before it is loaded", fix="optimize: false")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # Not further: the rest depends on the machine that it is done on.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    after = path.with_name(f".{path.name}.optimised")
    options.optimized_model_filepath = str(after)
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    after.replace(path)
