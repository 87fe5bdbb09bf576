"""From an engine's answer to ours: passed on as it is, or shaped anew."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import from_json

from limbeck.serving.errors import Failed
from limbeck.serving.language.schema import Asked
from limbeck.serving.language.shapes import Finish, Shape, Usage
from limbeck.serving.language.stops import Stops

_LARGEST_EVENT = 4 * 2**20
_END = b"\n\n"


@dataclass
class Tally:
    """What is known of an answer while it is written, without a word of it.

    Attributes:
        began: when it was asked for.
        first: seconds to its first piece.
        usage: its tokens, once they are told.
    """

    began: float = field(default_factory=time.monotonic)
    first: float | None = None
    usage: Usage | None = None

    @property
    def known(self) -> bool:
        """Whether any of the answer has come."""
        return self.first is not None or self.usage is not None

    def told(self) -> dict[str, Any]:
        """For a log."""
        tokens = {} if self.usage is None else self.usage.told()
        return tokens if self.first is None else {**tokens, "first_ms": round(self.first * 1000, 2)}

    def seen(self) -> None:
        """A piece has come."""
        if self.first is None:
            self.first = time.monotonic() - self.began

    def count(self, usage: dict[str, Any] | None) -> None:
        """Take an engine's counts, by OpenAI's names."""
        if usage:
            self.usage = Usage(int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0))


async def events(chunks: AsyncIterator[bytes]) -> AsyncIterator[list[bytes]]:
    """Server-sent events, whole, as many at a time as have come."""
    rest = b""
    async for chunk in chunks:
        *whole, rest = (rest + chunk).split(_END)
        if len(rest) > _LARGEST_EVENT:
            raise Failed("the engine's answer cannot be read")
        if whole:
            yield whole


async def passed(chunks: AsyncIterator[bytes], asked: Asked, tally: Tally) -> AsyncIterator[bytes]:
    """A stream as the engine writes it; counts of tokens that nobody asked for are taken out."""
    async for whole in events(chunks):
        tally.seen()
        kept = [event for event in whole if not _counts(event, tally) or asked.tells_usage]
        if kept:
            yield b"".join(event + _END for event in kept)


def _counts(event: bytes, tally: Tally) -> bool:
    """Whether an event is there for the counts alone; they are taken note of."""
    if b'"choices":[]' not in event:
        return False
    tally.count(_content(event).get("usage"))
    return True


async def shaped(chunks: AsyncIterator[bytes], asked: Asked, shape: Shape, tally: Tally) -> AsyncIterator[bytes]:
    """A stream of `transformers serve` as OpenAI's: text before stop strings, the reason of its end, its end."""
    if begin := shape.first():
        yield begin
    reading = _Reading(asked, tally)
    async for whole in events(chunks):
        pieces = [shape.piece(text) for event in whole if (text := reading.piece(event))]
        if pieces:
            yield b"".join(pieces)
    ending = shape.piece(rest) if (rest := reading.rest()) else b""
    yield ending + shape.last(reading.finish, reading.usage if asked.tells_usage else None)


async def gathered(chunks: AsyncIterator[bytes], asked: Asked, shape: Shape, tally: Tally) -> bytes:
    """The same as one answer."""
    reading = _Reading(asked, tally)
    said = [reading.piece(event) async for whole in events(chunks) for event in whole]
    return shape.whole("".join(said) + reading.rest(), reading.finish, reading.usage)


class _Reading:
    """A stream of `transformers serve`, event by event."""

    def __init__(self, asked: Asked, tally: Tally):
        self._stops, self._tally = Stops(asked.stops), tally
        self._finish: str | None = None

    def piece(self, event: bytes) -> str:
        """The text of an event."""
        content = _content(event)
        if not content:
            return ""
        if "error" in content:
            raise Failed("the engine failed on this request")
        self._tally.count(content.get("usage"))
        choice = (content.get("choices") or [{}])[0]
        self._finish = choice.get("finish_reason") or self._finish
        if text := choice.get("text") or "":
            self._tally.seen()
        return self._stops.feed(text)

    def rest(self) -> str:
        """What was held back for a stop string that did not come.

        Raises:
            Failed: the stream has ended before the answer.
        """
        if self._finish is None:
            raise Failed("the engine stopped within its answer")
        return self._stops.rest()

    @property
    def finish(self) -> Finish:
        """Why the answer ended."""
        return "length" if self._finish == "length" and not self._stops.found else "stop"

    @property
    def usage(self) -> Usage:
        """Its tokens."""
        return self._tally.usage or Usage(0, 0)


def _content(event: bytes) -> dict[str, Any]:
    """The JSON of an event; empty for ends and comments."""
    data = event.strip().removeprefix(b"data:").strip()
    if not data.startswith(b"{"):
        return {}
    try:
        return dict(from_json(data))
    except ValueError:
        # transformers writes errors' texts into its JSON as they are
        raise Failed("the engine failed on this request") from None
