"""One thing at a time: who asks while another question is being answered waits, and only a few may."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

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
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="limbeck-play")

    def enter(self, work: Callable[[], T]) -> Future[T]:
        """Have a piece of work done when its turn comes.

        Raises:
            Full: too many are waiting.
        """
        with self._lock:
            if self._there >= self.room:
                raise Full
            self._there += 1
        future = self._worker.submit(work)
        future.add_done_callback(self._leave)
        return future

    def _leave(self, _: Future[T]) -> None:
        with self._lock:
            self._there -= 1
