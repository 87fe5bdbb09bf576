"""TensorRT engines, by way of ONNX. They run on the kind of GPU that they were built on, and are built there."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from limbeck.core.errors import ModelError
from limbeck.core.parts import part
from limbeck.exporters._base import Exporter, Tool, copy_beside
from limbeck.exporters._graph import save, without_traces
from limbeck.exporters._traced import longest
from limbeck.exporters.onnx import TOOLS, graph_of, halved
from limbeck.runtime._base import Arrays, Runner, Tensors
from limbeck.runtime._checks import file_inside, fitting
from limbeck.runtime.card import Card
from limbeck.runtime.example import example, free_axes, signature
from limbeck.runtime.student import ServedStudent, codec_of
from limbeck.tasks import Codec

FILE = "model.engine"


@part
class Tensorrt(Exporter):
    """An engine for up to `batch_size` rows of up to the task's `max_length`."""

    precision: Literal["fp32", "fp16"] = "fp16"
    """Of weights and products."""
    batch_size: int = Field(default=32, ge=1)
    """The most rows of a request."""
    opset: int = Field(default=18, ge=18, le=25)
    """Version of ONNX's operators on the way."""

    tools: ClassVar[tuple[Tool, ...]] = (Tool("tensorrt", "tensorrt"), *TOOLS)
    runs_here: ClassVar[bool] = False

    def check(self, card: Card) -> None:
        super().check(card)
        if not torch.cuda.is_available():
            raise ModelError("a TensorRT engine is built on the GPU that will run it", got="no GPU here")

    def export(self, student: Path, folder: Path, card: Card) -> Card:
        import tensorrt

        copy_beside(student, folder, card)
        model = graph_of(student, card, self.opset)
        without_traces(model)
        log = tensorrt.Logger(tensorrt.Logger.ERROR)
        builder = tensorrt.Builder(log)
        # The graph's own types are kept: fp16 is written into it, not left to the builder.
        network = builder.create_network(1 << int(tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser, config = tensorrt.OnnxParser(network, log), builder.create_builder_config()
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "model.onnx"
            save(halved(model) if self.precision == "fp16" else model, path)
            if not parser.parse_from_file(str(path)):
                raise ModelError("TensorRT cannot read the graph", got=parser.get_error(0).desc())
        config.add_optimization_profile(self._sizes(builder, codec_of(student, card), card))
        built = builder.build_serialized_network(network, config)
        if built is None:
            raise ModelError("TensorRT cannot build an engine of the graph")
        (folder / FILE).write_bytes(bytes(built))
        facts = {"opset": self.opset, "batch_size": self.batch_size, "gpu": torch.cuda.get_device_name()}
        return replace(card, format="tensorrt", precision=self.precision, file=FILE, facts=facts)

    def _sizes(self, builder: Any, codec: Codec, card: Card) -> Any:
        """The least, the usual and the most rows and positions."""
        profile, most = builder.create_optimization_profile(), longest(card, 512)
        rows = {"batch": (1, min(8, self.batch_size), self.batch_size), "length": (1, min(64, most), most)}
        for name, x in example(codec).items():
            free = free_axes(name, x.ndim)
            shapes = [[rows[free[i]][k] if i in free else n for i, n in enumerate(x.shape)] for k in range(3)]
            profile.set_shape(name, *shapes)
        return profile

    def load(self, folder: Path, card: Card) -> ServedStudent:
        codec = codec_of(folder, card)
        return ServedStudent(card, codec, _Engine(file_inside(folder, card.file, "the card"), codec))


class _Engine(Runner):
    """An engine on this machine's GPU, fed by torch's memory."""

    engine = "tensorrt"
    device = "cuda"

    def __init__(self, path: Path, codec: Codec):
        import tensorrt

        self.runtime = tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.ERROR))
        self.model = self.runtime.deserialize_cuda_engine(path.read_bytes())
        if self.model is None:
            raise ModelError(f"TensorRT cannot load {path}", fix="export it again on this machine")
        self.context = self.model.create_execution_context()
        self.inputs = signature(example(codec))
        self.outputs = {"logits": Tensors("float32", (None,) * len(self.model.get_tensor_shape("logits")))}

    def run(self, inputs: Arrays) -> dict[str, NDArray[np.generic]]:
        given = {
            name: torch.from_numpy(np.ascontiguousarray(x)).cuda() for name, x in fitting(inputs, self.inputs).items()
        }
        for name, x in given.items():
            if not self.context.set_input_shape(name, tuple(x.shape)):
                raise ModelError(f"the engine's input `{name}` was built for other sizes", got=tuple(x.shape))
            self.context.set_tensor_address(name, x.data_ptr())
        logits = torch.empty(tuple(self.context.get_tensor_shape("logits")), dtype=torch.float32, device="cuda")
        self.context.set_tensor_address("logits", logits.data_ptr())
        stream = torch.cuda.current_stream()
        if not self.context.execute_async_v3(stream.cuda_stream):
            raise ModelError("TensorRT cannot run the model on this batch")
        stream.synchronize()
        return {"logits": logits.cpu().numpy()}
