"""OpenVINO's own files, by way of ONNX."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from limbeck.core.errors import ModelError
from limbeck.core.parts import part
from limbeck.exporters._base import Exporter, Tool, copy_beside
from limbeck.exporters._graph import save, without_traces
from limbeck.exporters.onnx import TOOLS, graph_of
from limbeck.runtime._checks import file_inside
from limbeck.runtime.card import Card
from limbeck.runtime.onnx_runner import check_weights_inside

FILE = "model.xml"


@part
class Openvino(Exporter):
    """model.xml and model.bin for OpenVINO."""

    precision: Literal["same", "fp16"] = "same"
    """Of the stored weights; `same`: the student's own, int8 too. fp16 halves the file, and is computed in fp32."""
    opset: int = Field(default=20, ge=18, le=25)
    """Version of ONNX's operators on the way."""

    tasks: ClassVar[tuple[str, ...]] = (*Exporter.tasks, "structured_reasoning")
    tools: ClassVar[tuple[Tool, ...]] = (Tool("openvino", "openvino"), *TOOLS)
    takes: ClassVar[tuple[str, ...]] = ("pytorch", "onnx")

    def export(self, student: Path, folder: Path, card: Card) -> Card:
        import openvino

        copy_beside(student, folder, card)
        with tempfile.TemporaryDirectory() as scratch:
            if card.format == "pytorch":
                model, graph = graph_of(student, card, self.opset), Path(scratch) / "model.onnx"
                without_traces(model)
                save(model, graph)
            else:
                graph = file_inside(student, card.file, "the card")
                check_weights_inside(graph)
            try:
                read = openvino.Core().read_model(str(graph))
                openvino.save_model(read, str(folder / FILE), compress_to_fp16=self.precision == "fp16")
            except RuntimeError as error:
                raise ModelError("OpenVINO cannot read the graph", got=str(error).strip().splitlines()[-1]) from error
        before = card if card.format == "onnx" else replace(card, precision="fp32", facts={"opset": self.opset})
        precision = self.precision if self.precision == "fp16" else before.precision
        facts = {name: value for name, value in before.facts.items() if name == "opset"}
        return replace(card, format="openvino", precision=precision, file=FILE, facts=facts)
