"""A cache whose place is taken once."""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field

from limbeck.core.parts import part
from limbeck.optimization._base import OfWriters, Optimization
from limbeck.runtime.decoding import Decoding


@part
class StaticCache(OfWriters, Optimization):
    """Keys and values in memory that is taken once, rather than copied to a longer piece for every token."""

    room: int | None = Field(default=None, kw_only=True, gt=0)
    """Positions of prompt and answer together that are held ready. Left out: as many as each answer may need."""

    def decoding(self, now: Decoding) -> Decoding:
        return replace(now, cache="static", cache_config={}, room=self.room)
