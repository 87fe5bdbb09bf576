"""Results on their way from threads to the event loops that wait for them."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from concurrent.futures import Future
from typing import Any, TypeVar

R = TypeVar("R")
_Letter = tuple["asyncio.Future[Any]", "Future[Any]"]


class Post:
    """Carries what futures of threads end with to loops, with one wake-up for all that has ended until then.

    A wake-up costs a system call, at which the loop's thread may take over from the one that calls.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ended: dict[asyncio.AbstractEventLoop, list[_Letter]] = {}

    def expect(self, future: Future[R]) -> asyncio.Future[R]:
        """A future of the running loop that ends as another does, once `deliver` is called after that."""
        loop = asyncio.get_running_loop()
        awaited: asyncio.Future[R] = loop.create_future()

        def put(ended: Future[R]) -> None:
            if not awaited.done():  # else it was given up
                with self._lock:
                    self._ended.setdefault(loop, []).append((awaited, ended))

        future.add_done_callback(put)
        if future.done():  # perhaps since before it was expected
            self.deliver()
        return awaited

    def deliver(self) -> None:
        """Bring what has ended to its loops; from any thread."""
        with self._lock:
            ended, self._ended = self._ended, {}
        for loop, letters in ended.items():
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                loop.call_soon_threadsafe(_open, letters)


def _open(letters: list[_Letter]) -> None:
    for awaited, ended in letters:
        if awaited.done():  # given up
            continue
        if (error := ended.exception()) is not None:
            awaited.set_exception(error)
        else:
            awaited.set_result(ended.result())
