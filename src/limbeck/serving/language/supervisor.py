"""An engine from its first start to its end: it is waited for, watched, and started again when it has died."""

from __future__ import annotations

import asyncio
import logging
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from limbeck.core.errors import ModelError
from limbeck.serving.errors import Draining
from limbeck.serving.language.child import Child
from limbeck.serving.language.engines import Address, Engine

_LOG = logging.getLogger(__name__)
_LOOK = 0.1
"""Seconds between looks at an engine that starts."""
_TELL = 10.0
"""Seconds between words about it."""
_LAST = 10.0
"""Seconds that an engine has for leaving by itself."""
_LONGEST_PATH = 100
"""Characters that a socket file's path may have; kernels take little more."""


class Unready(Draining):
    """The engine is not there at the moment."""

    reason = "engine_unready"


class Supervisor:
    """Keeps an engine running.

    Args:
        engine: that is started.
        tell: told how the start goes on, in words.
        log: a file that gets all that the engine says. It may quote requests.

    Attributes:
        ready: whether requests can be put to it.
        starts: that have ended.
    """

    def __init__(self, engine: Engine, tell: Callable[[str], None] = lambda text: None, log: Path | None = None):
        self.engine, self._tell, self._log_file = engine, tell, log
        self.ready = False
        self.starts = 0
        self._since: float | None = None
        self._client: httpx.AsyncClient | None = None

    @property
    def client(self) -> httpx.AsyncClient:
        """For requests to it.

        Raises:
            Unready: it does not run.
        """
        if not self.ready or self._client is None:
            raise Unready("the model's engine is not ready")
        return self._client

    async def run(self, ready: Callable[[], None] = lambda: None) -> None:
        """Start it, and start it again whenever it dies; until this is cancelled, which ends it.

        Args:
            ready: called when it is ready for the first time.

        Raises:
            ModelError: it does not start, or has died too often in a row.
        """
        with tempfile.TemporaryDirectory(prefix="limbeck-", dir=_short_folder()) as made:
            place = Path(made)
            await asyncio.to_thread(self.engine.prepare, place)
            failed = 0
            while True:
                self._since = None
                try:
                    end = _told(await self._live(place, ready))
                except ModelError as error:
                    if not self.starts:
                        raise
                    end = str(error.got)
                self.starts += 1
                failed = 1 if self._has_settled() else failed + 1
                _LOG.error("engine died", extra={"engine": self.engine.name, "how": end, "in_a_row": failed})
                if failed > self.engine.bounds.restarts:
                    raise ModelError(f"{self.engine.name} dies again and again", got=end)
                await asyncio.sleep(0.0 if failed == 1 else min(30.0, 2.0 ** (failed - 1)))

    async def _live(self, place: Path, ready: Callable[[], None]) -> int:
        """One life of the engine; the status that it ended with."""
        start = self.engine.start(place, self.starts + 1)
        child = Child(start.words, start.environment, place, self._log_file)
        try:
            async with self._reachable(start.address):
                await self._wait_until_ready(child)
                self.ready, self._since = True, time.monotonic()
                _LOG.info("engine ready", extra={"engine": self.engine.name, "pid": child.pid})
                if not self.starts:
                    ready()
                return await child.ended()
        finally:
            self.ready = False
            await asyncio.shield(child.stop(_LAST))

    def _has_settled(self) -> bool:
        """Whether the engine had been ready for a while when it died; how long it took to start does not count."""
        return self._since is not None and time.monotonic() - self._since > self.engine.bounds.settled

    @asynccontextmanager
    async def _reachable(self, address: Address) -> AsyncIterator[None]:
        """A client for an engine."""
        path = str(address.socket) if address.socket is not None else None
        headers = {"accept-encoding": "identity"}
        if address.key is not None:
            headers["authorization"] = f"Bearer {address.key}"
        many = httpx.Limits(max_connections=None, max_keepalive_connections=64)
        async with httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=path, limits=many),
            base_url=f"http://127.0.0.1:{address.port or 80}",
            headers=headers,
            timeout=httpx.Timeout(None, connect=5.0),
            trust_env=False,
        ) as self._client:
            yield

    async def _wait_until_ready(self, child: Child) -> None:
        await child.start()
        began = told = time.monotonic()
        while not await self._healthy():
            now = time.monotonic()
            if child.status is not None or now - began > self.engine.bounds.start_seconds:
                await child.stop(0.0)
                how = _told(child.status) if now - began <= self.engine.bounds.start_seconds else "it takes too long"
                raise ModelError(f"{self.engine.name} did not start", got="\n    ".join([how, *child.lines]))
            if now - told > _TELL:
                told = now
                self._tell(f"{self.engine.name} starts, {now - began:.0f} s")
            await asyncio.sleep(_LOOK)

    async def _healthy(self) -> bool:
        assert self._client is not None
        try:
            return (await self._client.get("/health", timeout=5.0)).status_code == 200
        except httpx.TransportError:
            return False

    async def figures(self) -> bytes:
        """The engine's own figures for Prometheus; empty where it has none, or is not there."""
        if self.engine.metrics is None or not self.ready or self._client is None:
            return b""
        try:
            reply = await self._client.get(self.engine.metrics, timeout=2.0)
        except httpx.TransportError:
            return b""
        return reply.content if reply.status_code == 200 else b""


def _told(status: int | None) -> str:
    """A process's end in words."""
    if status is None:
        return "it was stopped"
    return f"ended by signal {-status}" if status < 0 else f"ended with status {status}"


def _short_folder() -> str | None:
    """Where a folder for socket files can be made: None where the usual place will do."""
    return None if len(tempfile.gettempdir()) + 40 < _LONGEST_PATH else "/tmp"
