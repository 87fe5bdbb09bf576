"""Attention as one operator."""

from __future__ import annotations

from typing import ClassVar

from limbeck.core.parts import part
from limbeck.optimization._base import OfGraphs, Optimization, Subject


@part
class FuseAttention(OfGraphs, Optimization):
    """Attention as ONNX's own operator (opset 23), in the place of products, scale, mask and softmax."""

    attention: ClassVar[str] = "sdpa"
    opset: ClassVar[int] = 23

    def refusal(self, subject: Subject) -> str | None:
        if (refused := super().refusal(subject)) is not None:
            return refused
        if subject.model is None:
            return "the student is a graph already: attention is merged when it is exported"
        if not subject.model._supports_sdpa:
            return f"{type(subject.model).__name__} has no attention that can be exported as one operator"
        return None
