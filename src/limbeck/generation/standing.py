"""Endpoints that are asked one request at a time, for as long as a server lives."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Coroutine
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from limbeck.core.errors import LimbeckError
from limbeck.generation.account import Account
from limbeck.generation.budget import Budget
from limbeck.generation.calls import Caller
from limbeck.generation.endpoint import Endpoint, _Run
from limbeck.generation.ledger import Ledger
from limbeck.generation.types import Failure, Outcome, Request

T = TypeVar("T")
_REFUSED_FOR = 30.0
"""Seconds for which an endpoint that refuses the key, or wants money, is not asked again."""


class Till:
    """What the endpoints of a server share: one ledger, one budget, and the thread that asks them.

    Args:
        path: the ledger's file, which holds no texts but answers; None: in memory.
        budget: what may be spent on all of them together, over all processes that had this file.

    Raises:
        ArtifactError: another process has the ledger open.
    """

    def __init__(self, path: Path | None = None, budget: Budget | None = None):
        self._ledger = Ledger(path, private=True)
        self.account = Account(self._ledger, budget, scope="serve")
        self.settled = asyncio.Condition()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="endpoints", daemon=True)
        self._thread.start()

    def do(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Begin work in the thread."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def close(self) -> None:
        """Let the ledger go; who asks has been closed before."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._ledger.close()


class Standing:
    """Asks an endpoint. Every answer is in the till's ledger, and no budget is exceeded.

    Args:
        endpoint: that is asked.
        till: pays.
        max_waiting: requests under way at a time; beyond, they fail as `overloaded`.

    Raises:
        RecipeError: the environment variable of the key is not set.
    """

    def __init__(self, endpoint: Endpoint, till: Till, *, max_waiting: int = 64):
        endpoint.secret()  # a key that is missing is told now
        self.endpoint, self.till, self._most = endpoint, till, max_waiting
        self._asked: dict[str, Future[Outcome]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._lock = threading.Lock()
        self._refused_until = 0.0
        self._run = till.do(self._open()).result()

    def ask(self, request: Request) -> Future[Outcome]:
        """The outcome, as soon as it is known. Who gives up waiting does not end the call: it may be paid for already.

        Args:
            request: one that is under way already is not asked twice.
        """
        key = request.key
        with self._lock:
            if key in self._asked:
                return self._asked[key]
            if len(self._asked) >= self._most:
                full: Future[Outcome] = Future()
                full.set_result(Failure("overloaded", f"{self._most} requests are under way"))
                return full
            asked = self._asked[key] = self.till.do(self._answer(request))
        asked.add_done_callback(lambda _: self._left(key))
        return asked

    def close(self) -> None:
        """Give up what is under way."""
        self.till.do(self._close()).result()

    def _left(self, key: str) -> None:
        with self._lock:
            del self._asked[key]

    async def _open(self) -> _Run:
        run = _Run(self.endpoint, self.till.account, self.till.settled)
        self._client = await self.endpoint.client().__aenter__()
        run.caller = Caller(self._client, self.endpoint.timeout, self.endpoint.secret())
        return run

    async def _close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._client.close()

    async def _answer(self, request: Request) -> Outcome:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            return await self._ask(request)
        finally:
            self._tasks.discard(task)

    async def _ask(self, request: Request) -> Outcome:
        entry = self.till.account.open(request)
        try:
            if entry is not None and entry.is_final and entry.outcome is not None:
                return entry.outcome
            if self._run.error is not None and time.monotonic() > self._refused_until:
                self._run.error = None
            outcome = await self._run._one(request)
            if outcome is None:
                if self._refused_until < time.monotonic():
                    self._refused_until = time.monotonic() + _REFUSED_FOR
                return Failure("refused", str(self._run.error))
            return outcome
        except LimbeckError as error:  # the ledger cannot be written: nothing is asked without it
            return Failure("ledger", error.what)
        finally:
            self.till.account.close(request)
