"""Processes that do what may never end: each task has a deadline, and a worker that misses it is killed.

Libraries that stop themselves use signals, which work in the main thread only and not within C code. A killed process
always stops. Workers stay for the next call; they end when this process does, however it ends, since their input ends.
"""

from __future__ import annotations

import atexit
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

from limbeck.core.errors import LimbeckError

_START = 120.0
"""Seconds that a worker may need to load its libraries on a busy machine."""


@dataclass(frozen=True)
class Result:
    """What became of a task.

    Attributes:
        value: the worker's answer, where it gave one.
        failure: None, `timeout`, `crashed`, or `error`.
        detail: of an error: its type and message.
    """

    value: Any = None
    failure: str | None = None
    detail: str = ""


class _Worker:
    """One process, its task and its deadline."""

    def __init__(self, job: str):
        paths = os.pathsep.join(path for path in sys.path if path)
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-W", "ignore", "-m", "limbeck.verification.worker", job],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.input, self.output = self.process.stdin, self.process.stdout
        os.set_blocking(self.output.fileno(), False)
        self.read = b""
        self.ready = False
        self.task: int | None = None
        self.deadline = time.monotonic() + _START

    def give(self, number: int, task: Mapping[str, Any], timeout: float) -> None:
        self.task, self.deadline = number, time.monotonic() + timeout
        with suppress(BrokenPipeError):  # it has died; its output ends, and that is seen there
            self.input.write(json.dumps({**task, "timeout": timeout}).encode() + b"\n")
            self.input.flush()

    def line(self) -> bytes | None:
        """The next whole line; empty at the end of the output, None if nothing has come yet."""
        chunk = os.read(self.output.fileno(), 1 << 16)  # nothing may stay in a buffer that `select` does not see
        if not chunk:
            return b""
        self.read += chunk
        line, newline, rest = self.read.partition(b"\n")
        if not newline:
            return None
        self.read = rest
        return line

    def kill(self) -> None:
        """End the process and all that it started."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        with suppress(BrokenPipeError):
            self.input.close()
        self.output.close()


class Workers:
    """Processes for one job.

    Args:
        job: a name in `limbeck.verification.worker.JOBS`.
        count: how many tasks are done at a time.
    """

    def __init__(self, job: str, count: int):
        self.job, self.count = job, count
        self.workers: list[_Worker] = []
        self.lock = threading.Lock()

    def map(self, tasks: Sequence[Mapping[str, Any]], timeout: float) -> list[Result]:
        """Do all tasks.

        Args:
            tasks: what the job takes, JSON.
            timeout: seconds that each may take; the worker is killed after these.

        Returns:
            A result for each, in order.

        Raises:
            LimbeckError: a worker does not start.
        """
        with self.lock:
            try:
                return self._map(tasks, timeout)
            except BaseException:
                self._close()
                raise

    def _map(self, tasks: Sequence[Mapping[str, Any]], timeout: float) -> list[Result]:
        waiting, results = deque(range(len(tasks))), [Result()] * len(tasks)
        left = len(tasks)
        while left:
            while len(self.workers) < min(self.count, left):
                self.workers.append(_Worker(self.job))
            for worker in self.workers:
                if worker.ready and worker.task is None and waiting:
                    number = waiting.popleft()
                    worker.give(number, tasks[number], timeout)
            for worker, answer in self._answers():
                if worker.task is not None:
                    results[worker.task] = answer
                    worker.task, left = None, left - 1
        return results

    def _answers(self) -> list[tuple[_Worker, Result]]:
        """Wait for the next answers; workers that died or are late are gone afterwards."""
        busy = [w for w in self.workers if w.task is not None or not w.ready]
        now, answers = time.monotonic(), []
        with selectors.DefaultSelector() as selector:
            for worker in busy:
                selector.register(worker.output, selectors.EVENT_READ, worker)
            came = {key.data for key, _ in selector.select(max(0.0, min(w.deadline for w in busy) - now))}
        for worker in busy:
            line = worker.line() if worker in came else None
            late = line is None and time.monotonic() >= worker.deadline
            if line == b"" or late:
                if not worker.ready:
                    raise LimbeckError(f"a worker process for '{self.job}' did not start", got=worker.process.poll())
                worker.kill()
                self.workers.remove(worker)
                answers.append((worker, Result(failure="timeout" if late else "crashed")))
            elif line is not None and not worker.ready:
                worker.ready = True
            elif line is not None:
                told = json.loads(line)
                failed = "error" in told
                result = Result(failure="error", detail=told["error"]) if failed else Result(told["value"])
                answers.append((worker, result))
        return answers

    def close(self) -> None:
        """End all processes; the next `map` starts new ones."""
        with self.lock:
            self._close()

    def _close(self) -> None:
        for worker in self.workers:
            worker.kill()
        self.workers.clear()


@cache
def workers(job: str, count: int) -> Workers:
    """The processes for a job, shared by all that ask for as many; they are ended when this process ends."""
    made = Workers(job, count)
    atexit.register(made.close)
    return made
