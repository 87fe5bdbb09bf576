"""An HTTP server from the first request to the last: how it listens, drains and leaves."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

import uvicorn
from uvicorn.loops.auto import auto_loop_factory

from limbeck.serving.connections import bounded
from limbeck.serving.door import Door
from limbeck.serving.settings import Settings

_LOG = logging.getLogger(__name__)
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_KEEP_ALIVE = 15
_BACKLOG = 2048
"""Connections that wait to be taken."""
_LAST = 2.0
"""Seconds that what is behind the door is given in any case once the servers are down."""


class _Http(uvicorn.Server):
    """uvicorn, whose signals are ours."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Listener(ABC):
    """Serves what is behind a door until it is told to stop.

    Args:
        settings: address and bounds.

    Attributes:
        port: of HTTP, once it has started.
    """

    def __init__(self, settings: Settings):
        self._settings = settings
        self.port = settings.port
        self._stopped: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @abstractmethod
    def door(self) -> Door:
        """What requests come to."""

    async def begin(self) -> None:  # noqa: B027
        """Start what is behind the door; the address is listened to already."""

    @abstractmethod
    def leave(self) -> None:
        """Say from now on that it is not ready."""

    async def close(self, seconds: float) -> None:  # noqa: B027
        """Finish what came by other ways than HTTP, while HTTP does the same."""

    @abstractmethod
    async def finish(self, seconds: float) -> bool:
        """Once no caller is left: end what is behind the door.

        Returns:
            Whether everything that had begun was finished.
        """

    def run(self, started: Callable[[], None] = lambda: None) -> bool:
        """Serve until SIGTERM, SIGINT or `stop`.

        Args:
            started: called once requests are taken.

        Returns:
            Whether everything that had begun was finished.

        Raises:
            OSError: an address cannot be listened to.
        """
        with asyncio.Runner(loop_factory=auto_loop_factory()) as runner:  # uvloop, where it is installed
            return runner.run(self.serve(started))

    def stop(self) -> None:
        """Begin to drain; from any thread."""
        if self._loop is not None and self._stopped is not None:
            with contextlib.suppress(RuntimeError):  # it has stopped already
                self._loop.call_soon_threadsafe(self._stopped.set)

    async def serve(self, started: Callable[[], None] = lambda: None) -> bool:
        """What `run` does, in a loop that is running."""
        settings = self._settings
        self._loop, self._stopped = asyncio.get_running_loop(), asyncio.Event()
        listening = _listen(settings.host, settings.port)
        self.port = listening.getsockname()[1]
        door = self.door()
        http = _Http(_config(door, settings))
        await self.begin()
        with self._signals(http):
            serving = asyncio.create_task(http.serve(sockets=[listening]))
            stopped = asyncio.create_task(self._stopped.wait())
            started()
            await asyncio.wait({serving, stopped}, return_when=asyncio.FIRST_COMPLETED)
            stopped.cancel()
            _LOG.info("draining")
            end = time.monotonic() + settings.drain_seconds
            self.leave()
            door.leaving = True
            await asyncio.sleep(settings.linger)
            door.closed = http.should_exit = True
            await asyncio.gather(serving, self.close(end - time.monotonic()))
            done = await self.finish(max(_LAST, end - time.monotonic()))
        _LOG.info("stopped", extra={"finished": done})
        return done

    @contextlib.contextmanager
    def _signals(self, http: uvicorn.Server) -> Iterator[None]:
        """The first signal drains; one more does not wait for callers."""
        assert self._loop is not None
        stopped = self._stopped
        assert stopped is not None

        def told() -> None:
            http.force_exit = stopped.is_set()
            stopped.set()

        added = []
        for each in _SIGNALS:
            with contextlib.suppress(ValueError, RuntimeError, NotImplementedError):  # not the main thread
                self._loop.add_signal_handler(each, told)
                added.append(each)
        try:
            yield
        finally:
            for each in added:
                self._loop.remove_signal_handler(each)


def _config(door: Door, settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        door,
        http=bounded(settings.body_seconds, settings.max_connections),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=max(1, int(settings.drain_seconds)),
    )


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named: asyncio turns Nagle's algorithm off only where it is.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(_BACKLOG)  # who comes before uvicorn has begun waits, and is not refused
    except OSError as error:
        listening.close()
        raise OSError(error.errno, error.strerror, f"{host}:{port}") from error
    listening.setblocking(False)
    return listening
