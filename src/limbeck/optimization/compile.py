"""torch.compile for single steps."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import Literal

from pydantic import Field

from limbeck.core.parts import part
from limbeck.optimization._base import OfWriters, Optimization, Subject
from limbeck.runtime.decoding import Decoding


@part
class Compile(OfWriters, Optimization):
    """torch.compile of the step that makes one token, with a static cache; the prompt is read as before.

    The first tokens after a start take long, for they are compiled for.
    """

    mode: Literal["default", "max-autotune-no-cudagraphs"] = Field(default="default", kw_only=True)
    """How hard it looks for fast kernels."""
    room: int | None = Field(default=None, kw_only=True, gt=0)
    """Positions of the static cache: answers of all lengths up to it share what was compiled. Left out: each length is
    compiled for."""

    def refusal(self, subject: Subject) -> str | None:
        if (refused := super().refusal(subject)) is not None:
            return refused
        if not getattr(subject.model, "_can_compile_fullgraph", False):
            return f"transformers does not compile the steps of {type(subject.model).__name__}"
        if subject.device.type == "cpu" and not any(map(shutil.which, ("g++", "clang++", "c++"))):
            return "there is no C++ compiler here"
        return None

    def decoding(self, now: Decoding) -> Decoding:
        return replace(now, cache="static", cache_config={}, room=self.room or now.room, compile=self.mode)
