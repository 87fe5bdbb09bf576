"""A student run by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from limbeck.core.errors import MissingExtra, ModelError
from limbeck.runtime._base import Arrays, Runner, Tensors
from limbeck.runtime._checks import file_inside, fitting

if TYPE_CHECKING:
    import onnx

Level = Literal["none", "basic", "extended", "all"]
"""How far ONNX Runtime rewrites a graph when it loads it."""

_TYPES = {
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(bool)": "bool",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
}
_LEVELS = {
    "none": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}


class OnnxRunner(Runner):
    """An ONNX file in ONNX Runtime.

    Args:
        path: the file; weights that lie beside it stay in its folder.
        threads: of one request; None: as many as there are cores.
        device: cpu, cuda, or `auto`: cuda where this build of ONNX Runtime has it.
        level: how far the graph is rewritten when it is loaded.

    Raises:
        ModelError: the file cannot be loaded, or its weights lie outside of its folder.
        MissingExtra: onnxruntime or onnx is not installed.
    """

    engine = "onnxruntime"

    def __init__(
        self,
        path: Path,
        *,
        threads: int | None = None,
        device: str = "auto",
        level: Level = "all",
    ):
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingExtra("running ONNX files", "onnx") from error
        check_weights_inside(path)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, _LEVELS[level])
        options.inter_op_num_threads = 1
        if threads is not None:
            options.intra_op_num_threads = threads
        # Threads that wait do not spin: several models, and Python, share the cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=_providers(device))
        except Exception as error:  # its errors have no common base but this one
            what = f"ONNX Runtime cannot load {path}"
            raise ModelError(what, got=str(error).splitlines()[0], fix="export the student again") from error
        self.inputs = {each.name: _tensors(each) for each in self.session.get_inputs()}
        self.outputs = {each.name: _tensors(each) for each in self.session.get_outputs()}
        self.device = "cuda" if self.session.get_providers()[0].startswith("CUDA") else "cpu"
        self._names = list(self.outputs)

    def run(self, inputs: Arrays) -> dict[str, NDArray[np.generic]]:
        given = fitting(inputs, self.inputs)
        try:
            found = self.session.run(self._names, given)
        except Exception as error:  # as above
            what = "ONNX Runtime cannot run the model on this batch"
            raise ModelError(what, got=str(error).splitlines()[0]) from error
        return dict(zip(self._names, found, strict=True))


def _providers(device: str) -> list[str]:
    import onnxruntime

    there = onnxruntime.get_available_providers()
    if device == "cuda" and "CUDAExecutionProvider" not in there:
        fix = "pip install onnxruntime-gpu"
        raise ModelError("this ONNX Runtime knows no CUDA", got=", ".join(there), fix=fix)
    wanted = ["CUDAExecutionProvider"] if device in ("auto", "cuda") else []
    return [each for each in [*wanted, "CPUExecutionProvider"] if each in there]


def _tensors(told: Any) -> Tensors:
    if told.type not in _TYPES:
        raise ModelError(f"the model's `{told.name}` is of a type that is not known here", got=told.type)
    return Tensors(_TYPES[told.type], tuple(size if isinstance(size, int) else None for size in told.shape))


def check_weights_inside(path: Path) -> None:
    """Make sure that an ONNX file takes no weights from outside of its folder.

    Raises:
        ModelError: it is no ONNX file, or it does.
        MissingExtra: onnx is not installed.
    """
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError as error:
        raise MissingExtra("reading ONNX files", "onnx") from error
    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, OSError, ValueError) as error:
        raise ModelError(f"{path} is no ONNX file", got=error) from error
    for tensor in _all_tensors(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            location = next((entry.value for entry in tensor.external_data if entry.key == "location"), None)
            file_inside(path.parent, location, f"{path.name} ({tensor.name})")


def _all_tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor that a model holds: initializers, and those in attributes, of graphs within graphs too."""
    graphs, nodes = [model.graph], [node for function in model.functions for node in function.node]
    while graphs or nodes:
        if graphs:
            graph = graphs.pop()
            nodes += graph.node
            yield from graph.initializer
            for sparse in graph.sparse_initializer:
                yield from (sparse.values, sparse.indices)
            continue
        for attribute in nodes.pop().attribute:
            yield from (*([attribute.t] if attribute.HasField("t") else []), *attribute.tensors)
            for sparse in [*([attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []),
                           *attribute.sparse_tensors]:  # fmt: skip
                yield from (sparse.values, sparse.indices)
            graphs += [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]
