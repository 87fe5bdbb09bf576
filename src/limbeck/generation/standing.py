"""An endpoint that is asked one request at a time, for as long as a server lives."""

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


class Standing:
    """Asks an endpoint in a thread of its own. Every answer is in the ledger, and no budget is exceeded.

    Args:
        endpoint: that is asked.
        path: the ledger's file; None: in memory.
        budget: what may be spent, over all processes that had this file.
        max_waiting: requests under way at a time; beyond, they fail as `overloaded`.

    Raises:
        RecipeError: the environment variable of the key is not set.
        ArtifactError: another process has the ledger open.
    """

    def __init__(
        self, endpoint: Endpoint, path: Path | None = None, budget: Budget | None = None, *, max_waiting: int = 64
    ):
        endpoint.secret()  # a key that is missing is told now
        self.endpoint, self._most = endpoint, max_waiting
        self._ledger = Ledger(path)
        self.account = Account(self._ledger, budget, endpoint.price, "serve")
        self._asked: dict[str, Future[Outcome]] = {}
        self._lock = threading.Lock()
        self._refused_until = 0.0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="endpoint", daemon=True)
        self._thread.start()
        try:
            self._run = self._do(self._open()).result()
        except BaseException:
            self._end()
            raise

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
            asked = self._asked[key] = self._do(self._ask(request))
        asked.add_done_callback(lambda _: self._left(key))
        return asked

    def close(self) -> None:
        """Give up what is under way, and let the ledger go."""
        self._do(self._close()).result()
        self._end()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._ledger.close()

    def _left(self, key: str) -> None:
        with self._lock:
            del self._asked[key]

    def _do(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _open(self) -> _Run:
        run = _Run(self.endpoint, self.account)
        self._client = await self.endpoint.client().__aenter__()
        run.caller = Caller(self._client, self.endpoint.timeout, self.endpoint.secret())
        return run

    async def _close(self) -> None:
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._client.close()

    async def _ask(self, request: Request) -> Outcome:
        entry = self.account.open(request)
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
            self.account.close(request)
