"""HTTP connections that cannot be held open without asking anything."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

_HEAD = 64 * 1024
"""Bytes that the line and the headers of a request may have."""


def bounded(seconds: float, most: int) -> type[asyncio.Protocol]:
    """uvicorn's protocol, with bounds that it lacks.

    Args:
        seconds: in which a request's headers must have come, from its first byte (or the connection's start) on.
        most: connections that may be open.
    """

    class Bounded(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            self._head = 0
            self._late: asyncio.TimerHandle | None = None
            if len(self.connections) > most:
                transport.abort()
            else:
                self._start()

        def data_received(self, data: bytes) -> None:
            if not self._asking():
                self._head += len(data)
                self._start()
            super().data_received(data)
            if self._asking():
                self._stop()
            elif self._head > _HEAD:
                self.transport.abort()

        def connection_lost(self, error: Exception | None) -> None:
            self._stop()
            super().connection_lost(error)

        def _asking(self) -> bool:
            """Whether a request's headers are there, and it is not yet answered."""
            cycle: Any = self.cycle
            return cycle is not None and not cycle.response_complete

        def _start(self) -> None:
            if self._late is None:
                self._late = asyncio.get_running_loop().call_later(seconds, self.transport.abort)

        def _stop(self) -> None:
            self._head = 0
            if self._late is not None:
                self._late.cancel()
                self._late = None

    return Bounded
