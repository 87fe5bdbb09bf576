"""An engine's process: started in a group of its own, and ended with all that it has started."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from limbeck.serving.settings import TOKEN

_TAIL = 16 * 1024
_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
_QUIET = {"HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1", "VLLM_NO_USAGE_STATS": "1", "PYTHONUNBUFFERED": "1"}


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, mode=0o600)


class Child:
    """A process that is started once.

    Args:
        words: for `launch`.
        environment: beyond the server's own.
        place: where it runs.
        log: a file that gets all it says; None: nothing is kept but the last lines.
    """

    def __init__(self, words: Sequence[str], environment: Mapping[str, str], place: Path, log: Path | None = None):
        self._words = [sys.executable, "-P", "-m", "limbeck.serving.language.launch", *words]
        self._environment, self._place, self._log = environment, place, log
        self._process: asyncio.subprocess.Process | None = None
        self._tail = b""
        self._reading: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin; it is not ready yet."""
        inherited = {name: value for name, value in os.environ.items() if name != TOKEN}
        if paths := inherited.get("PYTHONPATH"):  # it runs in another folder
            inherited["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, paths.split(os.pathsep)))
        self._process = await asyncio.create_subprocess_exec(
            *self._words,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**inherited, **_OFFLINE, **_QUIET, **self._environment},
            cwd=self._place,
            start_new_session=True,
        )
        self._reading = asyncio.create_task(self._read())

    @property
    def pid(self) -> int:
        """Of the process, and of its group."""
        assert self._process is not None
        return self._process.pid

    @property
    def status(self) -> int | None:
        """As `subprocess` has it, negative for signals; None while it runs."""
        return None if self._process is None else self._process.returncode

    @property
    def lines(self) -> list[str]:
        """The last that it has said."""
        return [line for line in self._tail.decode("utf-8", "replace").splitlines()[-20:] if line.strip()]

    async def ended(self) -> int:
        """Wait until it has ended; its status."""
        assert self._process is not None
        return await self._process.wait()

    async def stop(self, seconds: float) -> None:
        """End it and its descendants: politely, then not.

        Args:
            seconds: that it has for leaving by itself.
        """
        if self._process is None:
            return
        self._signal(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._process.wait()
        self._signal(signal.SIGKILL)  # of its descendants some may be left, though it has ended itself
        await self._process.wait()
        if self._reading is not None:
            await asyncio.wait({self._reading}, timeout=1.0)  # for its last lines
            self._reading.cancel()
        if self._process.stdin is not None:
            self._process.stdin.close()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        with open(self._log, "ab", buffering=0, opener=_private) if self._log else contextlib.nullcontext() as log:
            while part := await self._process.stdout.read(65536):
                self._tail = (self._tail + part)[-_TAIL:]
                if log is not None:
                    log.write(part)
