"""One thing at a time: who asks while another question is being answered waits, and only a few may."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")


class Full(Exception):
    """So many are waiting that nobody more is let in."""


class Desk:
    """A thread that does one piece of work after the other.

    Args:
        room: pieces that may be there, the one at work among them.
    """

    def __init__(self, room: int = 4):
        self.room = room
        self._there = 0
        self._lock = threading.Lock()
        self._waiting: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        # A daemon, for Python would wait at its end for an address that does not answer.
        self._worker = threading.Thread(target=self._work, name="limbeck-play", daemon=True)
        self._worker.start()

    def enter(self, work: Callable[[], T]) -> Future[T]:
        """Have a piece of work done when its turn comes.

        Raises:
            Full: too many are waiting.
        """
        with self._lock:
            if self._there >= self.room:
                raise Full
            self._there += 1
        future: Future[T] = Future()
        self._waiting.put((future, work))
        return future

    def close(self, seconds: float = 5.0) -> None:
        """End when all that is there is done; what takes longer than this is left behind."""
        self._waiting.put(None)
        self._worker.join(seconds)

    def _work(self) -> None:
        while (piece := self._waiting.get()) is not None:
            future, work = piece
            tell: Callable[[], None] = _nothing
            if future.set_running_or_notify_cancel():
                try:
                    tell = partial(future.set_result, work())
                except BaseException as error:  # it is the asker's
                    tell = partial(future.set_exception, error)
            with self._lock:  # first, so that who is told finds room
                self._there -= 1
            tell()


def _nothing() -> None:
    """What is told to who went away."""
