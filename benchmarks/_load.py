"""Callers of a server, for B10: some who ask again at once, or many who come at random."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

CALLERS = 32
"""Who ask again at once."""
MOST_OPEN = 2000
"""Requests under way; beyond it one counts as missed, as by a full backlog."""
LATE = 10.0
"""Seconds after which nobody waits for an answer."""


@dataclass
class Running:
    """A server and its processes."""

    port: int
    process: subprocess.Popen[bytes]

    def signal(self, what: int) -> None:
        """To all of its processes."""
        os.killpg(self.process.pid, what)

    def seconds(self) -> float:
        """Of the processors, that it has had."""
        import psutil

        first = psutil.Process(self.process.pid)
        times = [each.cpu_times() for each in [first, *first.children(recursive=True)]]
        return float(sum(each.user + each.system for each in times))

    @contextmanager
    def awake(self) -> Iterator[None]:
        """While it is asked."""
        self.signal(signal.SIGCONT)
        try:
            yield
        finally:
            self.signal(signal.SIGSTOP)


@dataclass
class Load:
    """What came of one load."""

    took: list[float] = field(default_factory=list)
    missed: int = 0
    seconds: float = 0.0
    cpu: float = 0.0

    def told(self, rate: float) -> dict[str, float]:
        """Its figures, in milliseconds where they are times."""
        took = np.array(self.took or [float("inf")]) * 1e3
        count = len(self.took) + self.missed
        return {
            "rate": rate,
            "mean": float(took.mean()),
            "p50": float(np.percentile(took, 50)),
            "p99": float(np.percentile(took, 99)),
            "answered": len(self.took) / max(self.seconds, 1e-9),
            "missed": self.missed / max(count, 1),
            "cpu_ms": self.cpu / max(len(self.took), 1) * 1e3,
        }


class Caller:
    """Asks a server over connections that are kept.

    Args:
        port: of the server.
        texts: requests, taken in turn.
    """

    def __init__(self, port: int, texts: list[bytes], load: Load):
        self._port, self._load, self._open = port, load, 0
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        head = "POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: "
        self._texts = itertools.cycle([f"{head}{len(each)}\r\n\r\n".encode() + each for each in texts])

    async def ask(self, due: float) -> None:
        """One request, whose time runs since it was due."""
        if self._open >= MOST_OPEN:
            self._load.missed += 1
            return
        self._open += 1
        try:
            async with asyncio.timeout(LATE):
                status = await self._ask(next(self._texts))
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            status = 0
        finally:
            self._open -= 1
        if status == 200:
            self._load.took.append(time.perf_counter() - due)
        else:
            self._load.missed += 1

    async def _ask(self, request: bytes) -> int:
        if self._free:
            reader, writer = self._free.pop()
        else:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        whole = False
        try:
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            await reader.readexactly(int(head.split(b"content-length:")[1].split(b"\r\n")[0]))
            whole = b"connection: close" not in head
        finally:
            if whole:
                self._free.append((reader, writer))
            else:
                writer.close()
        return int(head[9:12])


def closed_loop(server: Running, texts: list[bytes], seconds: float, callers: int = CALLERS) -> Load:
    """So many callers, who ask again at once."""

    async def work(caller: Caller, end: float) -> None:
        while (now := time.perf_counter()) < end:
            await caller.ask(now)

    async def run(load: Load) -> None:
        caller, end = Caller(server.port, texts, load), time.perf_counter() + seconds
        await asyncio.gather(*(work(caller, end) for _ in range(callers)))

    return _timed(server, run)


def open_loop(server: Running, texts: list[bytes], rate: float, seconds: float, seed: int) -> Load:
    """Requests at random, `rate` a second, whatever becomes of those before."""
    draw = np.random.default_rng(seed)
    due = np.cumsum(draw.exponential(1 / rate, max(1, int(rate * seconds))))

    async def run(load: Load) -> None:
        caller, began, tasks = Caller(server.port, texts, load), time.perf_counter(), set[asyncio.Task[None]]()
        for at in (began + due).tolist():
            if (left := at - time.perf_counter()) > 0:
                await asyncio.sleep(left)
            elif len(tasks) % 16 == 0:
                await asyncio.sleep(0)
            task = asyncio.ensure_future(caller.ask(at))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)

    return _timed(server, run)


def _timed(server: Running, run: Any) -> Load:
    load = Load()
    with server.awake():
        cpu, began = server.seconds(), time.perf_counter()
        asyncio.run(run(load))
        load.seconds, load.cpu = time.perf_counter() - began, server.seconds() - cpu
    return load
