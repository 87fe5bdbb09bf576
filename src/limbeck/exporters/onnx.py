"""ONNX by torch's own exporter.

Shapes: B batch, T positions, C classes.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from pydantic import Field

from limbeck.core.errors import ModelError
from limbeck.core.parts import part
from limbeck.exporters._base import Exporter, Tool, copy_beside
from limbeck.exporters._graph import operators, optimised, save, without_traces
from limbeck.exporters._traced import Traceable, first_line, hushed, traceable
from limbeck.runtime._checks import file_inside
from limbeck.runtime.card import Card
from limbeck.runtime.example import free_axes
from limbeck.runtime.onnx_runner import check_weights_inside

if TYPE_CHECKING:
    import onnx

FILE = "model.onnx"
TOOLS = (Tool("onnx", "onnx"), Tool("onnxscript", "onnx"), Tool("onnxruntime", "onnx"))


@part
class Onnx(Exporter):
    """One graph with dynamic batch and length, and all that is needed to ask it."""

    opset: int = Field(default=20, ge=18, le=25)
    """Version of the operators; engines know all up to theirs."""
    precision: Literal["fp32", "fp16"] = "fp32"
    """Of the weights. fp16 is for GPUs; a CPU computes it in fp32."""
    optimize: bool = False
    """Write the graph as ONNX Runtime rewrites it when it loads one: loaded quicker, but by ONNX Runtime alone."""

    tasks: ClassVar[tuple[str, ...]] = (*Exporter.tasks, "structured_reasoning")
    tools: ClassVar[tuple[Tool, ...]] = TOOLS
    takes: ClassVar[tuple[str, ...]] = ("pytorch", "onnx")

    def export(self, student: Path, folder: Path, card: Card) -> Card:
        import onnx

        copy_beside(student, folder, card)
        path = folder / FILE
        if card.format == "onnx":
            graph = file_inside(student, card.file, "the card")
            check_weights_inside(graph)
            model, precision = onnx.load(graph), card.precision
        else:
            model, precision = graph_of(student, card, self.opset), "fp32"
        without_traces(model)
        before = sum(operators(model).values())
        if self.precision == "fp16" and precision == "fp32":
            model, precision = halved(model), "fp16"
        save(model, path)
        if self.optimize:
            optimised(path)
        facts = {"opset": model.opset_import[0].version, "operators": before}
        if self.optimize:
            facts["operators"] = sum(operators(onnx.load(path, load_external_data=False)).values())
            facts["operators_before"] = before
        return replace(card, format="onnx", precision=precision, file=FILE, facts=facts)


def graph_of(student: Path, card: Card, opset: int) -> onnx.ModelProto:
    """A student in torch as an ONNX graph: the task's inputs to `logits`, for any number of rows and positions.

    Raises:
        ModelError: torch cannot export the model.
    """
    return graph_from(traceable(student, card), opset)


def graph_from(given: Traceable, opset: int) -> onnx.ModelProto:
    """The same of a student that is loaded.

    Raises:
        ModelError: torch cannot export the model.
    """
    free = tuple(free_axes(name, x.ndim) for name, x in given.inputs.items())
    try:
        with hushed():
            program = torch.onnx.export(
                given.module,
                tuple(given.inputs.values()),
                dynamo=True,
                opset_version=opset,
                input_names=list(given.inputs),
                output_names=["logits"],
                dynamic_shapes=(free,),
                external_data=False,
                verbose=False,
            )
    except Exception as error:  # the exporter's errors come from torch.export, onnxscript and the model
        what = f"torch cannot export {given.name} to ONNX"
        raise ModelError(what, got=first_line(error), fix="another format") from error
    assert program is not None
    return program.model_proto


def halved(model: onnx.ModelProto) -> Any:
    """The graph with weights in fp16; what goes in and comes out stays fp32."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    return convert_float_to_float16(model, keep_io_types=True)
