"""A teacher behind an interface like OpenAI's: asked by many calls at once, each paid for once."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from limbeck.core.errors import LimbeckError, MissingExtra, ModelError, RecipeError
from limbeck.core.recipe.endpoint import Endpoint as Section
from limbeck.core.recipe.endpoint import check_extra
from limbeck.generation.account import Account
from limbeck.generation.budget import Amount, Price
from limbeck.generation.calls import Call, Caller
from limbeck.generation.concurrency import Limiter
from limbeck.generation.ledger import Charge, Ledger
from limbeck.generation.retry import backoff
from limbeck.generation.types import BUDGET, PERMANENT, Completion, Failure, Outcome, Request

if TYPE_CHECKING:
    from openai import AsyncOpenAI

Done = Callable[[Request, Outcome], None]
_GIVE_UP = 50
"""So many requests in a row without an answer: the endpoint is not working."""
_HOPELESS = (PERMANENT - {"empty"}) | {"no_usage"}
"""Reasons for which another attempt would only cost more; a second answer may well not be empty."""


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A generator behind an OpenAI-compatible endpoint.

    Attributes:
        base_url: the address, up to and without `/chat/completions`.
        name: the model's name there.
        api_key: the environment variable that holds the key; None: the endpoint wants none.
        price: money per million tokens.
        concurrency: most calls at once; how many there are is found by trying.
        timeout: seconds that a call may take in all.
        attempts: how often a request is tried in a run.
        max_wait: longest wait between two attempts, in seconds, whatever `Retry-After` says.
        idempotent: the endpoint charges once for calls with one Idempotency-Key. Then the price of a lost call is
            struck once its answer is here; else it stays counted as possibly spent.
        wait_scale: factor on all waits between attempts; for tests.
    """

    base_url: str
    name: str
    api_key: str | None = None
    price: Price = field(default_factory=Price)
    concurrency: int = 32
    timeout: float = 600.0
    attempts: int = 8
    max_wait: float = 60.0
    idempotent: bool = False
    wait_scale: float = 1.0

    def __post_init__(self) -> None:
        parts = urlsplit(self.base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise RecipeError("base_url is not an address", got=parts.path, allowed="https://host/v1")
        if parts.username or parts.password:
            raise RecipeError("base_url holds a secret", fix="name an environment variable with `api_key`")

    def answer(self, requests: Sequence[Request], done: Done, account: Account | None = None) -> None:
        """Answer all requests, in any order; `done` is called once for each as soon as it is known.

        Args:
            requests: what is wanted.
            done: takes each outcome; it is on the disk by then.
            account: ledger and budget; left out: nothing is kept, and there is no limit.

        Raises:
            ModelError: the endpoint refuses the key, wants money, does not know the model, or does not work.
            RecipeError: the environment variable of the key is not set, or `extra` holds what it must not.
        """
        for request in requests:
            try:
                check_extra(request.sampling.extra)
            except ValueError as error:
                raise RecipeError(str(error)) from None
        if account is None:
            with Ledger() as ledger:
                _run(_Run(self, Account(ledger, price=self.price)).all(requests, done))
        else:
            _run(_Run(self, account).all(requests, done))

    def client(self) -> AsyncOpenAI:
        """A client that holds the key, and never tries again by itself.

        Raises:
            RecipeError: the environment variable is not set or holds no key.
            MissingExtra: the package `openai` is not installed.
        """
        try:
            from openai import AsyncOpenAI
        except ImportError:
            raise MissingExtra("asking an endpoint", "generate") from None
        return AsyncOpenAI(api_key=self.secret(), base_url=self.base_url, max_retries=0, timeout=self.timeout)

    def secret(self) -> str:
        """The key, out of the environment.

        Raises:
            RecipeError: the variable is not set, or its value can be no key.
        """
        if self.api_key is None:
            return "none"  # the client wants one
        value = os.environ.get(self.api_key, "").strip()
        if not value:
            raise RecipeError(f"the environment variable {self.api_key} is not set", fix="put the key into it")
        if not (value.isascii() and value.isprintable()) or " " in value:
            raise RecipeError(f"the environment variable {self.api_key} holds no key", fix="it has blanks in it")
        return value


def behind(section: Section) -> Endpoint:
    """The generator that a recipe's section names."""
    return Endpoint(
        base_url=section.base_url,
        name=section.model,
        api_key=section.api_key,
        price=Price(section.price.input, section.price.output),
        concurrency=section.max_concurrency,
        timeout=section.timeout,
        attempts=section.attempts,
        idempotent=section.idempotent,
    )


def _worth_asking_again(call: Call) -> bool:
    return isinstance(call.outcome, Failure) and call.outcome.reason not in _HOPELESS


def _run(work: Coroutine[Any, Any, None]) -> None:
    """Run to the end, also where a loop is running already, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(work)
    else:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(asyncio.run, work).result()


class _Run:
    """One `answer`: what its calls share.

    Args:
        endpoint: that is asked.
        account: pays.
        settled: told when a call has ended; left out: of these calls alone.
    """

    def __init__(self, endpoint: Endpoint, account: Account, settled: asyncio.Condition | None = None):
        self.endpoint, self.account = endpoint, account
        self.limiter = Limiter(endpoint.concurrency)
        self.draw = random.Random()  # waits, not results: runs are not to wait in step
        self.settled = settled or asyncio.Condition()
        self.error: LimbeckError | None = None
        self.unanswered = 0

    async def all(self, requests: Sequence[Request], done: Done) -> None:
        """Answer all; workers take one request after the other."""
        waiting = iter(requests)
        self.account.limiter = self.limiter
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(self.endpoint.client())
            self.caller = Caller(client, self.endpoint.timeout, self.endpoint.secret())
            # More workers than calls at once: those that wait for another attempt hold no place.
            workers = min(len(requests), 4 * self.endpoint.concurrency)
            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(workers):
                        group.create_task(self._work(waiting, done))
            except BaseExceptionGroup as errors:
                raise errors.exceptions[0] from None
        if self.error is not None:
            raise self.error

    async def _work(self, waiting: Iterator[Request], done: Done) -> None:
        for request in waiting:
            outcome = await self._one(request)
            if outcome is None:
                return
            done(request, outcome)
            self._watch(outcome)

    def _watch(self, outcome: Outcome) -> None:
        """Stop where nothing comes back any more."""
        if isinstance(outcome, Completion):
            self.unanswered = 0
        elif outcome.reason != BUDGET:
            self.unanswered += 1
            if self.unanswered >= _GIVE_UP and self.error is None:
                what = f"{self.endpoint.base_url} left {self.unanswered} requests in a row without an answer"
                self.error = ModelError(what, got=f"{outcome.reason}: {outcome.detail}", fix="see to it, and run again")

    async def _one(self, request: Request) -> Outcome | None:
        """Ask until there is an answer or no sense in asking again; None once nothing is asked any more."""
        worst = self.endpoint.price.worst(request)
        received = self.account.received(request)
        for attempt in count():
            ticket = await self.limiter.acquire()
            call = None
            try:
                if self.error is not None:
                    return None
                if not await self._reserve(request, worst):
                    return Failure(BUDGET, "what may be spent is spent")
                # An answer that came and was of no use would come again under the same key.
                call = await self.caller.ask(request, f"{request.key}-{received}" if received else request.key)
                again = attempt + 1 < self.endpoint.attempts and _worth_asking_again(call)
                await self._settle(request, worst, call, again)
            finally:
                answered = call is not None and isinstance(call.outcome, Completion)
                self.limiter.release(ticket, congested=call is not None and call.congested, answered=answered)
            if call.refused:
                self.error = self.error or self._refusal(call)
                return None
            if not again:
                return call.outcome
            received += call.usage is not None
            await self._wait(attempt, call)
        raise AssertionError("a loop without an end has ended")

    async def _reserve(self, request: Request, worst: Amount) -> bool:
        """Hold what the call can cost at most; wait where calls under way may leave something over."""
        async with self.settled:
            await self.settled.wait_for(lambda: self.account.fits(worst) or not self.account.calls)
            if not self.account.fits(worst):
                return False
            reserved = self.account.hold(request, worst)
        await asyncio.wrap_future(reserved)
        return True

    async def _settle(self, request: Request, worst: Amount, call: Call, again: bool) -> None:
        received = call.usage is not None
        charge = Charge(
            spent=self.endpoint.price.of(*call.usage) if call.usage else Amount(),
            lost=worst if call.maybe_charged and not received else Amount(),
            received=received,
            strike_lost=received and self.endpoint.idempotent,
        )
        await asyncio.wrap_future(self.account.settle(request, call.outcome, worst, charge, again))
        async with self.settled:
            self.settled.notify_all()

    async def _wait(self, attempt: int, call: Call) -> None:
        most = self.endpoint.max_wait
        seconds = backoff(attempt, 1.0, most, self.draw)
        if call.retry_after is not None:
            if call.retry_after <= most:  # it speaks of the endpoint, not of this call alone
                self.limiter.pause(call.retry_after * self.endpoint.wait_scale)
            seconds += min(call.retry_after, most)
        await asyncio.sleep(seconds * self.endpoint.wait_scale)

    def _refusal(self, call: Call) -> LimbeckError:
        fix = {401: "see to the key", 402: "see to the money", 403: "see to the key", 404: "see to the model's name"}
        return ModelError(
            f"{self.endpoint.base_url} refuses to answer as {self.endpoint.name}",
            got=getattr(call.outcome, "detail", None),
            fix=f"{fix.get(call.status or 0, 'see to the account')}, and run again; what was answered is kept",
        )
