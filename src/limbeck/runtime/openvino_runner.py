"""A student run by OpenVINO."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from limbeck.core.errors import MissingExtra, ModelError
from limbeck.runtime._base import Arrays, Runner, Tensors
from limbeck.runtime._checks import fitting
from limbeck.runtime.onnx_runner import check_weights_inside


class OpenvinoRunner(Runner):
    """OpenVINO's own files, or an ONNX file, on a CPU.

    Args:
        path: model.xml with model.bin beside it, or model.onnx.
        threads: of one request; None: as many as there are cores.

    Raises:
        ModelError: the file cannot be loaded.
        MissingExtra: openvino is not installed.
    """

    engine = "openvino"

    def __init__(self, path: Path, *, threads: int | None = None):
        try:
            import openvino
        except ImportError as error:
            raise MissingExtra("running OpenVINO files", "openvino") from error
        if path.suffix == ".onnx":
            check_weights_inside(path)
        # In fp32 also on processors that would rather compute in bf16: what is served is what was compared.
        plan = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        if threads is not None:
            plan["INFERENCE_NUM_THREADS"] = str(threads)
        try:
            core = openvino.Core()
            self.model = core.compile_model(core.read_model(str(path)), "CPU", plan)
        except RuntimeError as error:
            raise ModelError(f"OpenVINO cannot load {path}", got=str(error).strip().splitlines()[-1]) from error
        self.inputs = {port.any_name: _tensors(port) for port in self.model.inputs}
        self.outputs = {port.any_name: _tensors(port) for port in self.model.outputs}

    def run(self, inputs: Arrays) -> dict[str, NDArray[np.generic]]:
        given = fitting(inputs, self.inputs)
        try:
            found = self.model(given)
        except RuntimeError as error:
            what = "OpenVINO cannot run the model on this batch"
            raise ModelError(what, got=str(error).strip().splitlines()[-1]) from error
        # Copied, for the engine writes the next answer into the same place.
        return {name: np.array(found[name]) for name in self.outputs}


def _tensors(port: object) -> Tensors:
    shape = port.get_partial_shape()  # type: ignore[attr-defined]
    kind = port.get_element_type().to_dtype()  # type: ignore[attr-defined]
    return Tensors(np.dtype(kind).name, tuple(None if size.is_dynamic else size.get_length() for size in shape))
