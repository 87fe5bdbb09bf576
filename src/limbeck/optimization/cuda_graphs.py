"""Steps recorded once as CUDA graphs."""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field

from limbeck.core.parts import part
from limbeck.optimization._base import OfWriters, Optimization, Subject
from limbeck.runtime.decoding import Decoding


@part
class CudaGraphs(OfWriters, Optimization):
    """Compiled steps as CUDA graphs: the kernels of a token are launched together (torch.compile's reduce-overhead)."""

    room: int | None = Field(default=None, kw_only=True, gt=0)
    """Positions of the static cache: answers of all lengths up to it share a graph. Left out: each length has one."""

    def refusal(self, subject: Subject) -> str | None:
        if (refused := super().refusal(subject)) is not None:
            return refused
        if subject.device.type != "cuda":
            return "there is no CUDA device here"
        if not getattr(subject.model, "_can_compile_fullgraph", False):
            return f"transformers does not compile the steps of {type(subject.model).__name__}"
        return None

    def decoding(self, now: Decoding) -> Decoding:
        return replace(now, cache="static", cache_config={}, room=self.room or now.room, compile="reduce-overhead")
