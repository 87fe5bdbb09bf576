"""How many calls are under way at once: as many as the endpoint bears."""

from __future__ import annotations

import asyncio
from collections import deque


class Limiter:
    """A semaphore whose size adapts: additive increase, multiplicative decrease.

    It doubles with each round of answers until the first sign of congestion, then halves, and from there grows by
    one a round. Calls that began before a cut do not cut again: they are the same congestion seen once more.

    Args:
        maximum: the largest size.
        start: the first size.

    Reference:
        Chiu and Jain, Analysis of the Increase and Decrease Algorithms for Congestion Avoidance in Computer
        Networks, 1989.
    """

    def __init__(self, maximum: int, start: int = 4):
        self.maximum = maximum
        self.limit = float(min(start, maximum))
        self.in_flight = 0
        self._cuts = 0
        self._paused_until = 0.0
        self._queue: deque[asyncio.Future[None]] = deque()

    async def acquire(self) -> int:
        """Wait for a place; returns a ticket, to be given back with `release`."""
        loop = asyncio.get_running_loop()
        while True:
            if (pause := self._paused_until - loop.time()) > 0:
                await asyncio.sleep(pause)
            elif self.in_flight < int(self.limit):
                self.in_flight += 1
                return self._cuts
            else:
                turn = loop.create_future()
                self._queue.append(turn)
                await turn

    def release(self, ticket: int, *, congested: bool, answered: bool) -> None:
        """Give a place back and learn from how the call went.

        Args:
            ticket: what `acquire` returned.
            congested: the endpoint was asked too much: 429, 503 or no answer in time.
            answered: it answered as it should.
        """
        full = self.in_flight >= int(self.limit)
        self.in_flight -= 1
        if congested and ticket == self._cuts:
            self.limit = max(1.0, self.limit / 2)
            self._cuts += 1
        elif answered and full:  # a limit that is not reached is not known to be bearable
            self.limit = min(float(self.maximum), self.limit + (1.0 if self._cuts == 0 else 1.0 / self.limit))
        for _ in range(max(1, int(self.limit) - self.in_flight)):
            self._wake()

    def pause(self, seconds: float) -> None:
        """Let no call begin for some time."""
        self._paused_until = max(self._paused_until, asyncio.get_running_loop().time() + seconds)

    def _wake(self) -> None:
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return
