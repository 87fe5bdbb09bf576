"""The engine: rows of many callers go through one model together, and every caller gets its own back."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from math import ceil
from typing import Any, Generic, TypeVar

from limbeck.serving.batching import Limits, choose, turn
from limbeck.serving.errors import Cancelled, Draining, Expired, Failed, Overloaded, ServingError, TooLarge

T = TypeVar("T")
R = TypeVar("R")

_LOG = logging.getLogger(__name__)
_SMOOTH = 0.2
"""Weight of the newest batch in the running means."""
_SPARE = 64.0
"""Tokens that a batch is taken to cost beyond its own, until warm-up has measured it."""


@dataclass(frozen=True)
class Ran:
    """A batch that was computed, for metrics.

    Attributes:
        rows: how many.
        tokens: their lengths together.
        padded: rows times the longest.
        seconds: that it took.
        failed: rows whose computation failed.
    """

    rows: int
    tokens: int
    padded: int
    seconds: float
    failed: int


class Ticket(Generic[T, R]):
    """A request in the engine.

    Attributes:
        future: gets the results in the order of the items, or the error.
        deadline: in seconds of the monotonic clock.
    """

    def __init__(self, count: int, deadline: float, forget: Callable[[Ticket[T, R]], None]):
        self.future: Future[list[R]] = Future()
        self.future.set_running_or_notify_cancel()  # it is ended by `cancel` below alone, not by a library's
        self.deadline = deadline
        self._results: list[Any] = [None] * count
        self._left = count
        self._over = False
        self._forget = forget
        self._lock = threading.Lock()

    @property
    def over(self) -> bool:
        """Whether there is nothing more to compute for it."""
        return self._over

    def cancel(self) -> None:
        """The caller is gone: rows that still wait are not computed."""
        self.fail(Cancelled("the caller went away"))
        self._forget(self)

    def give(self, place: int, result: R) -> None:
        """One row's result."""
        with self._lock:
            self._results[place] = result
            self._left -= 1
            if self._left or self._over:
                return
            self._over = True
        self.future.set_result(self._results)  # outside of the lock: its callbacks are not ours

    def fail(self, error: ServingError) -> None:
        """End it without an answer; what was decided before stands."""
        with self._lock:
            if self._over:
                return
            self._over = True
        self.future.set_exception(error)


@dataclass(frozen=True, eq=False)
class _Row(Generic[T, R]):
    item: T
    length: int
    group: Hashable
    ticket: Ticket[T, R]
    place: int
    since: float

    @property
    def deadline(self) -> float:
        return self.ticket.deadline


class Engine(Generic[T, R]):
    """Dynamic batching in front of a model.

    Rows wait in one bounded queue. A worker thread takes the one whose turn it is (`turn`) and its nearest in length
    (`choose`), computes
    them and gives each result to the ticket that its row came from. Where a batch fails, its rows are computed one by
    one, so that only the rows at fault fail.

    Args:
        runs: the model, once for each worker thread: items in, as many results out, in order.
        limits: what it takes on.
        observe: told of every batch.
        delivered: called when tickets have ended, from the thread that ended them.
        name: of its threads.
    """

    def __init__(
        self,
        runs: Sequence[Callable[[Sequence[T]], Sequence[R]]],
        limits: Limits,
        *,
        observe: Callable[[Ran], None] = lambda ran: None,
        delivered: Callable[[], None] = lambda: None,
        name: str = "engine",
    ):
        self.limits, self._observe, self._delivered = limits, observe, delivered
        self._waiting: list[_Row[T, R]] = []
        self._running = 0
        self._tokens = 0
        self._change = threading.Condition()
        self._needs: list[int] = []  # rows that workers which wait want there to be
        self._closed = False
        self._rate = 0.0  # padded tokens a second, of one worker; 0 until known
        self._spare = _SPARE
        self._threads = [
            threading.Thread(target=self._work, args=(run,), name=f"{name}-{i}", daemon=True)
            for i, run in enumerate(runs)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Rows that wait."""
        return len(self._waiting)

    @property
    def waiting_tokens(self) -> int:
        """Tokens of the rows that wait."""
        return self._tokens

    @property
    def busy(self) -> bool:
        """Whether anything waits or is computed."""
        return bool(self._waiting or self._running)

    @property
    def alive(self) -> bool:
        """Whether it computes what it is given."""
        return not self._closed and all(thread.is_alive() for thread in self._threads)

    def check(self, rows: int = 1) -> None:
        """Refuse rows for which there would be no room, before work is put into them.

        Raises:
            Overloaded: the queue is full.
            Draining: it is about to stop.
        """
        if not self.alive:
            raise Draining("the model is being taken down")
        if len(self._waiting) + rows > self.limits.max_queue:
            raise Overloaded("too many requests are waiting", self._retry_after())

    def submit(
        self,
        items: Sequence[T],
        lengths: Sequence[int],
        *,
        groups: Sequence[Hashable] | None = None,
        deadline: float | None = None,
    ) -> Ticket[T, R]:
        """Put a request's rows into the queue: all of them, or none.

        Args:
            items: one a row.
            lengths: their tokens.
            groups: rows of different groups never share a batch.
            deadline: seconds from now; left out: the limits' own.

        Raises:
            Overloaded: there is no room, or the answer would come after the deadline.
            TooLarge: a row is above the budget of a batch, or the rows would never fit the queue.
            Draining: it is about to stop.
        """
        limits, total = self.limits, sum(lengths)
        if max(lengths) > limits.max_batch_tokens:
            raise TooLarge(f"a row has {max(lengths)} tokens, a batch has room for {limits.max_batch_tokens}")
        if len(items) > limits.max_queue or total > limits.max_queue_tokens:
            raise TooLarge(f"{len(items)} rows of {total} tokens are more than the queue ever holds")
        seconds = limits.deadline if deadline is None else deadline
        now = time.monotonic()
        ticket: Ticket[T, R] = Ticket(len(items), now + seconds, self._forget)
        groups = groups or [None] * len(items)
        with self._change:
            self.check(len(items))
            if self._tokens + total > limits.max_queue_tokens:
                raise Overloaded("too many tokens are waiting", self._retry_after())
            # An idle engine takes it in any case: only by computing does it learn that it has become quicker.
            if self.busy and self._wait_for(self._tokens + total) > seconds:
                raise Overloaded("the answer would come after the deadline", self._retry_after())
            self._waiting += [
                _Row(item, length, group, ticket, place, now)
                for place, (item, length, group) in enumerate(zip(items, lengths, groups, strict=True))
            ]
            self._tokens += total
            # A worker that waits for company is not woken by each single row.
            if len(self._waiting) >= min(self._needs, default=1) or self._tokens >= limits.max_batch_tokens:
                self._change.notify_all()
        return ticket

    def measured(self, seconds: Sequence[tuple[int, float]]) -> None:
        """Learn from warm-up what a batch costs: seconds = (spare + padded tokens) / rate, by least squares.

        Args:
            seconds: (padded tokens, seconds) of batches of different sizes.
        """
        sizes, times = [size for size, _ in seconds], [time_ for _, time_ in seconds]
        mean, mean_time = sum(sizes) / len(sizes), sum(times) / len(times)
        spread = sum((size - mean) ** 2 for size in sizes)
        slope = sum((s - mean) * (t - mean_time) for s, t in seconds) / spread if spread else 0.0
        if slope <= 0:  # all cost the same: company is free
            self._spare = float(self.limits.max_batch_tokens)
            return
        self._rate = 1 / slope
        self._spare = min(max(mean_time / slope - mean, 1.0), float(self.limits.max_batch_tokens))

    def drain(self, seconds: float) -> bool:
        """Take no more, finish what is there, stop the threads.

        Returns:
            Whether everything was done in time; what was not fails with `Draining`.
        """
        end = time.monotonic() + seconds
        with self._change:
            self._closed = True
            self._change.notify_all()
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        left = self._take_all()
        for row in left:
            row.ticket.fail(Draining("the server stopped before this was computed"))
        self._delivered()
        return not left and not any(thread.is_alive() for thread in self._threads)

    def _take_all(self) -> list[_Row[T, R]]:
        with self._change:
            left, self._waiting, self._tokens = self._waiting, [], 0
        return left

    def _forget(self, ticket: Ticket[T, R]) -> None:
        with self._change:
            self._keep([row for row in self._waiting if row.ticket is not ticket])

    def _keep(self, rows: list[_Row[T, R]]) -> None:
        self._waiting = rows
        self._tokens = sum(row.length for row in rows)

    def _wait_for(self, tokens: int) -> float:
        """Seconds until so many tokens will have been computed; 0 while the speed is unknown."""
        return tokens / (self._rate * len(self._threads)) if self._rate else 0.0

    def _retry_after(self) -> int:
        return min(max(1, ceil(self._wait_for(self._tokens))), 60)

    def _work(self, run: Callable[[Sequence[T]], Sequence[R]]) -> None:
        last = 0
        while batch := self._next(last):
            last = len(batch)
            try:
                self._compute(run, batch)
            finally:
                with self._change:
                    self._running -= 1

    def _next(self, last: int) -> list[_Row[T, R]] | None:
        """The next batch, once there is one; None when it is time to stop.

        Args:
            last: rows of the batch before. Callers that just got their answers are given a moment to ask again, as
                many as they were; an engine that nobody asks in this time is idle, and takes the next row at once.
        """
        while True:
            with self._change:
                end = time.monotonic() + self.limits.max_wait
                while len(self._waiting) < last and not self._closed and self._tokens < self.limits.max_batch_tokens:
                    if (left := end - time.monotonic()) <= 0:
                        break
                    self._wait(last, left)
                while not self._waiting:
                    if self._closed:
                        return None
                    self._wait(1)
                late = self._drop_finished()
                batch = self._batch() if self._waiting else []
                if batch:
                    chosen = set(map(id, batch))
                    self._keep([row for row in self._waiting if id(row) not in chosen])
                    self._running += 1
            for row in late:  # outside of the lock: a future's callbacks are not ours
                row.ticket.fail(Expired("the deadline passed while the request was waiting"))
            if late:
                self._delivered()
            if batch:
                return batch
            last = 0

    def _wait(self, rows: int, seconds: float | None = None) -> None:
        """Until so many rows wait, or for some time."""
        self._needs.append(rows)
        try:
            self._change.wait(seconds)
        finally:
            self._needs.remove(rows)

    def _batch(self) -> list[_Row[T, R]]:
        first = turn(self._waiting, time.monotonic(), self._spare)
        return choose(self._waiting, first, self.limits, self._spare)

    def _drop_finished(self) -> list[_Row[T, R]]:
        """Leave only rows that somebody waits for; returns those whose time is over."""
        now = time.monotonic()
        late = [row for row in self._waiting if row.ticket.deadline <= now]
        self._keep([row for row in self._waiting if row.ticket.deadline > now and not row.ticket.over])
        return late

    def _compute(self, run: Callable[[Sequence[T]], Sequence[R]], batch: list[_Row[T, R]]) -> None:
        began = time.monotonic()
        failed = 0
        try:
            results = _checked(run([row.item for row in batch]), len(batch))
        except Exception as error:
            alone = len(batch) == 1
            failed = self._blame(batch[0], error) if alone else sum(self._alone(run, row) for row in batch)
        else:
            for row, result in zip(batch, results, strict=True):
                row.ticket.give(row.place, result)
        self._delivered()
        seconds = time.monotonic() - began
        padded = len(batch) * max(row.length for row in batch)
        if not failed:
            rate = (self._spare + padded) / max(seconds, 1e-6)
            with self._change:
                self._rate += _SMOOTH * (rate - self._rate) if self._rate else rate
        self._observe(Ran(len(batch), sum(row.length for row in batch), padded, seconds, failed))

    def _alone(self, run: Callable[[Sequence[T]], Sequence[R]], row: _Row[T, R]) -> int:
        """Compute one row; returns 1 if it failed."""
        if row.ticket.over:
            return 0
        try:
            row.ticket.give(row.place, _checked(run([row.item]), 1)[0])
        except Exception as error:
            return self._blame(row, error)
        finally:
            self._delivered()
        return 0

    def _blame(self, row: _Row[T, R], error: Exception) -> int:
        _LOG.warning("a row failed", exc_info=error)
        failed = Failed("the model failed on this input")
        failed.__cause__ = error
        row.ticket.fail(failed)
        return 1


def _checked(results: Sequence[R], count: int) -> Sequence[R]:
    if len(results) != count:
        raise RuntimeError(f"the model gave {len(results)} results for {count} rows")
    return results
