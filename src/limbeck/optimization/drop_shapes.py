"""Graphs without the notes of their inner shapes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from limbeck.core.parts import part
from limbeck.optimization._base import OfGraphs, Optimization, Subject

if TYPE_CHECKING:
    import onnx


@part
class DropShapes(OfGraphs, Optimization):
    """Drop the exporter's notes of inner shapes, without which ONNX Runtime does not merge residual sums with norms.

    Its merged operator (SkipLayerNormalization) is slower on CPUs than the two that it stands for.
    """

    def refusal(self, subject: Subject) -> str | None:
        refused = super().refusal(subject)
        if refused is not None or subject.model is not None:
            return refused
        import onnx

        read = onnx.load(subject.folder / str(subject.card.file), load_external_data=False)
        return None if read.graph.value_info else "the graph has no notes of shapes"

    def graph(self, model: onnx.ModelProto, subject: Subject) -> onnx.ModelProto:
        del model.graph.value_info[:]
        return model
