"""ONNX by torch's own exporter.

Shapes: B batch, T positions, C classes.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from pydantic import Field

from limbeck.core.errors import ModelError
from limbeck.core.parts import part
from limbeck.core.recipe import Model
from limbeck.exporters._base import Exporter, Tool, copy_beside
from limbeck.exporters._graph import operators, optimised, save, without_traces
from limbeck.models.load import load_model
from limbeck.runtime.card import Card
from limbeck.runtime.example import example, free_axes
from limbeck.runtime.student import codec_of, task_in

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
            model, precision = onnx.load(student / str(card.file)), card.precision
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


class _Logits(torch.nn.Module):
    """A model that takes its inputs in order and gives logits alone."""

    def __init__(self, model: torch.nn.Module, names: Sequence[str], causal: bool):
        super().__init__()
        self.model, self.names = model, list(names)
        self.extra = {"use_cache": False} if causal else {}

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.model(**dict(zip(self.names, inputs, strict=True)), **self.extra).logits


def graph_of(student: Path, card: Card, opset: int) -> onnx.ModelProto:
    """A student in torch as an ONNX graph: the task's inputs to `logits`, for any number of rows and positions.

    Raises:
        ModelError: torch cannot export the model.
    """
    task, codec = task_in(card), codec_of(student, card)
    model = load_model(Model(model=str(student)), task.auto_class, settings={}, dtype=torch.float32).eval()
    given = example(codec)
    causal = model.get_output_embeddings() is not None
    wrapped = _Logits(model, list(given), causal)
    free = tuple(free_axes(name, x.ndim) for name, x in given.items())
    try:
        with _hushed():
            program = torch.onnx.export(
                wrapped,
                tuple(given.values()),
                dynamo=True,
                opset_version=opset,
                input_names=list(given),
                output_names=["logits"],
                dynamic_shapes=(free,),
                external_data=False,
                verbose=False,
            )
    except Exception as error:  # the exporter's errors come from torch.export, onnxscript and the model
        what = f"torch cannot export {type(model).__name__} to ONNX"
        raise ModelError(what, got=str(error).strip().splitlines()[0], fix="another format") from error
    assert program is not None
    return program.model_proto


@contextmanager
def _hushed() -> Iterator[None]:
    """Without the exporter's progress, advice and warnings, which its result does not depend on."""
    loud = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    before = [each.level for each in loud]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        for each in loud:
            each.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for each, level in zip(loud, before, strict=True):
                each.setLevel(level)


def halved(model: onnx.ModelProto) -> Any:
    """The graph with weights in fp16; what goes in and comes out stays fp32."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    return convert_float_to_float16(model, keep_io_types=True)
