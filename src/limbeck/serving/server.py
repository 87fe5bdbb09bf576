"""The server: both protocols in one loop, from the first request to the last."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import time
from collections.abc import Callable, Iterator

import uvicorn

from limbeck.serving.connections import bounded
from limbeck.serving.grpc_server import GrpcServer
from limbeck.serving.http import create_app
from limbeck.serving.metrics import Metrics
from limbeck.serving.repository import Repository
from limbeck.serving.settings import Settings

_LOG = logging.getLogger(__name__)
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_KEEP_ALIVE = 15
_LAST = 2.0
"""Seconds that engines are given in any case once the servers are down."""


class _Http(uvicorn.Server):
    """uvicorn, whose signals are ours."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Server:
    """Serves a repository until it is told to stop.

    Args:
        repository: of the models, loaded.
        settings: address, token and bounds.
        metrics: told of everything.

    Attributes:
        port: of HTTP, once it has started.
        grpc_port: of gRPC; None where it is not asked for.
    """

    def __init__(self, repository: Repository, settings: Settings, metrics: Metrics):
        self._repository, self._settings, self._metrics = repository, settings, metrics
        self.port, self.grpc_port = settings.port, settings.grpc_port
        self._stopped: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, started: Callable[[], None] = lambda: None) -> bool:
        """Serve until SIGTERM, SIGINT or `stop`.

        Args:
            started: called once requests are taken.

        Returns:
            Whether everything that had begun was finished.

        Raises:
            OSError: an address cannot be listened to.
        """
        return asyncio.run(self.serve(started))

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
        door = create_app(self._repository, settings, self._metrics)
        config = uvicorn.Config(
            door,
            http=bounded(settings.body_seconds, settings.max_connections),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=_KEEP_ALIVE,
            timeout_graceful_shutdown=max(1, int(settings.drain_seconds)),
        )
        http, grpc = _Http(config), None
        if settings.grpc_port is not None:
            grpc = GrpcServer(self._repository, settings, self._metrics)
            await grpc.start()
            self.grpc_port = grpc.port
        with self._signals(http):
            serving = asyncio.create_task(http.serve(sockets=[listening]))
            stopped = asyncio.create_task(self._stopped.wait())
            if settings.watch_seconds is not None:
                self._repository.watch(settings.watch_seconds)
            started()
            await asyncio.wait({serving, stopped}, return_when=asyncio.FIRST_COMPLETED)
            stopped.cancel()
            _LOG.info("draining")
            end = time.monotonic() + settings.drain_seconds
            self._repository.leave()
            door.leaving = True
            await asyncio.sleep(settings.linger)
            door.closed = http.should_exit = True
            await asyncio.gather(serving, grpc.stop(end - time.monotonic()) if grpc else asyncio.sleep(0))
            done = await asyncio.to_thread(self._repository.drain, max(_LAST, end - time.monotonic()))
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


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise OSError(error.errno, error.strerror, f"{host}:{port}") from error
    listening.setblocking(False)
    return listening
