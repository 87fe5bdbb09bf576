"""Places at an engine: so many answers are written at a time, so many requests wait in order, the rest is refused."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from limbeck.serving.errors import Overloaded

_LONGEST = 60
"""Seconds after which a refused caller may come again, at most."""


class Slots:
    """First come, first served.

    Args:
        most: answers at a time.
        max_queue: that may wait.

    Attributes:
        running: answers that are written now.
    """

    def __init__(self, most: int, max_queue: int):
        self.most, self.max_queue = most, max_queue
        self.running = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._mean = 1.0  # seconds of an answer

    @property
    def waiting(self) -> int:
        """Requests that wait."""
        return len(self._waiting)

    @asynccontextmanager
    async def taken(self) -> AsyncIterator[None]:
        """A place, from when it is free to the end of the block; whoever is cancelled gives it back.

        Raises:
            Overloaded: too many wait.
        """
        await self._take()
        began = time.monotonic()
        try:
            yield
        finally:
            self._mean += 0.1 * (time.monotonic() - began - self._mean)
            self._give()

    async def _take(self) -> None:
        if self.running < self.most:
            self.running += 1
            return
        if len(self._waiting) >= self.max_queue:
            seconds = math.ceil(self._mean * (len(self._waiting) + 1) / self.most)
            raise Overloaded("too many requests wait for the model", min(max(1, seconds), _LONGEST))
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._give()  # it was given, and is not wanted any more
            else:
                with suppress(ValueError):  # it may have been passed over already
                    self._waiting.remove(turn)
            raise

    def _give(self) -> None:
        """Hand a place to the next who waits."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.running -= 1
