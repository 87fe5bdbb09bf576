"""One version of a model as it is served: a student, its encoder, and the engine in front of it."""

from __future__ import annotations

import asyncio
import io
import threading
import time
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from limbeck.core.errors import ModelError
from limbeck.runtime import Arrays
from limbeck.runtime.example import made_up
from limbeck.runtime.student import Answer, ServedStudent, task_in
from limbeck.serving.batching import Limits
from limbeck.serving.bounds import Bounds
from limbeck.serving.encoder import Encoder, Fields
from limbeck.serving.engine import Engine
from limbeck.serving.errors import BadRequest, Expired, Failed, TooLarge
from limbeck.serving.metrics import Metrics
from limbeck.serving.post import Post
from limbeck.serving.rows import Row, check, group_of, length_of, split, stack

_SHORTEST = 8
"""Tokens of the first row that warm-up computes; each next one has twice as many."""
_WARM_SECONDS = 5.0
"""After this warm-up starts nothing more."""


class Model:
    """A student behind an engine.

    Args:
        name: it is asked by.
        version: of that name.
        student: that answers.
        limits: of its engine.
        metrics: told of its batches.

    Attributes:
        roles: what a plain request may hold, by name; whether it must.
        bounds: of its own inputs.

    Raises:
        ModelError: it is a language model.
    """

    def __init__(self, name: str, version: str, student: ServedStudent, limits: Limits, metrics: Metrics):
        if not student.labels:
            raise ModelError(f"`{name}` is a language model, which this engine does not serve")
        self.name, self.version, self.student, self.limits = name, version, student, limits
        self._task = task_in(student.card)
        self.roles = {role: must for role, must in self._task.roles.items() if role != "label"}
        self.bounds = Bounds()
        self._fill = {"input_ids": getattr(student.codec.processor, "pad_token_id", None) or 0}
        self._encoder, self._post = Encoder(student, self._task, name), Post()
        self._encoding = 0  # rows; of the event loop alone
        self._leases, self._returned = 0, threading.Condition()
        observe = metrics.observer(name, version)
        self.engine: Engine[Row, Row] = Engine(
            [self._run], limits, observe=observe, delivered=self._post.deliver, name=f"run-{name}"
        )

    @contextmanager
    def lease(self) -> Iterator[Model]:
        """While it is used, it is not taken down."""
        with self._returned:
            self._leases += 1
        try:
            yield self
        finally:
            with self._returned:
                self._leases -= 1
                self._returned.notify_all()

    def warm_up(self) -> None:
        """Run rows of all lengths, so that no caller pays for first times, and learn what a batch costs."""
        seed = self.encode([self._made_up()])[0]
        told: list[tuple[int, float]] = []
        end = time.monotonic() + _WARM_SECONDS
        for rows, length in self._sizes(seed):
            batch = [_resized(seed, self.student.runner.inputs, length)] * rows
            took = []
            for _ in range(2):
                began = time.perf_counter()
                self._run(batch)
                took.append(time.perf_counter() - began)
            told.append((rows * length, min(took)))
            if time.monotonic() > end:
                break
        self.engine.measured(told)

    def encode(self, fields: Fields) -> list[Row]:
        """Plain inputs as rows of arrays; errors as those of `Encoder.encode`."""
        return self._encoder.encode(fields)

    async def ask(self, fields: Fields, seconds: float | None = None) -> dict[str, Any]:
        """The model's outputs for plain inputs, by name, one a row.

        Args:
            fields: of each row: what it is asked by role.
            seconds: the caller's own deadline.

        Raises:
            ServingError: there is no answer.
        """
        self._check_fields(fields)
        if len(fields) > self.limits.max_queue:
            raise TooLarge(f"{len(fields)} rows are more than the queue ever holds")
        end = time.monotonic() + self._seconds(seconds)
        self.engine.check(self._encoding + len(fields))  # no work is put into what would be refused
        self._encoding += len(fields)
        try:
            rows = await self._encoder.read(fields, end - time.monotonic())
        finally:
            self._encoding -= len(fields)
        return await self._answer(rows, end - time.monotonic())

    async def ask_arrays(self, arrays: Arrays, seconds: float | None = None) -> dict[str, Any]:
        """The model's outputs for its own inputs, by name, one a row.

        Raises:
            ServingError: there is no answer.
        """
        wanted = self.student.runner.inputs
        rows = split(check(arrays, wanted))
        self.bounds.check(arrays, rows, wanted)
        # 8-bit ranges are a batch's own: numbers of any size would take the others' precision away.
        alone = self.student.card.precision == "int8" and any(array.dtype.kind == "f" for array in arrays.values())
        return await self._answer(rows, self._seconds(seconds), object() if alone else None)

    def answers(self, outputs: Mapping[str, Any]) -> list[Answer]:
        """Labels with calibrated confidence.

        Raises:
            Failed: the model gave something that is no number.
        """
        logits_NC = np.asarray(outputs["logits"], dtype=np.float32)
        if not np.isfinite(logits_NC).all():
            raise Failed("the model's answer is no number")
        return self.student.answers(logits_NC)

    def retire(self, seconds: float) -> bool:
        """Finish what has begun, then stop. The caller has seen to it that nothing new comes.

        Returns:
            Whether everything was done in time.
        """
        end = time.monotonic() + seconds
        with self._returned:
            idle = self._returned.wait_for(lambda: not self._leases, seconds)
        done = self.engine.drain(max(0.0, end - time.monotonic()))
        self._encoder.close()
        return idle and done

    async def _answer(self, rows: Sequence[Row], seconds: float, company: Hashable = None) -> dict[str, Any]:
        if seconds <= 0:
            raise Expired("the deadline passed before the request was read")
        wanted = self.student.runner.inputs
        lengths = [length_of(row, wanted) for row in rows]
        groups = [(company, group_of(row, wanted)) for row in rows]
        ticket = self.engine.submit(rows, lengths, groups=groups, deadline=seconds)
        try:
            async with asyncio.timeout(seconds):
                results = await self._post.expect(ticket.future)
        except TimeoutError as error:
            ticket.cancel()
            raise Expired("the deadline passed") from error
        except asyncio.CancelledError:
            ticket.cancel()
            raise
        return {name: [result[name] for result in results] for name in results[0]}

    def _run(self, rows: Sequence[Row]) -> list[Row]:
        return split(self.student.runner.run(stack(rows, self._fill)))

    def _seconds(self, asked: float | None) -> float:
        return self.limits.deadline if asked is None else min(asked, self.limits.deadline)

    def _check_fields(self, fields: Fields) -> None:
        allowed = ", ".join(self.roles)
        for each in fields:
            if unknown := sorted(each.keys() - self.roles.keys()):
                raise BadRequest(f"`{self.name}` takes no {unknown[0]}", allowed=allowed)
            if missing := sorted({role for role, must in self.roles.items() if must} - each.keys()):
                raise BadRequest(f"`{self.name}` wants {missing[0]}", allowed=allowed)

    def _made_up(self) -> Mapping[str, Any]:
        return _plain(made_up(self.student.codec, 1)[0].inputs)

    def _sizes(self, seed: Row) -> list[tuple[int, int]]:
        """(rows, length) to warm up with: single rows of all lengths, then batches up to the budget."""
        limits = self.limits
        most = limits.max_batch_tokens
        if length_of(seed, self.student.runner.inputs) > 1:
            longest = min(most, int(getattr(self._task, "max_length", most)))
            lengths = [_SHORTEST]
            while lengths[-1] * 2 <= longest:
                lengths.append(lengths[-1] * 2)
        else:
            lengths = [1]
        sizes = [(1, length) for length in lengths]
        sizes += [(min(limits.max_batch_rows, most // length), length) for length in lengths]
        return sorted({(rows, length) for rows, length in sizes if rows}, key=lambda size: size[0] * size[1])


def _resized(row: Row, wanted: Mapping[str, Any], length: int) -> Row:
    """The same row with so many tokens, the given ones over and over."""
    found = {}
    for name, array in row.items():
        sizes = wanted[name].shape[1:] if name in wanted else array.shape
        shape = tuple(length if size is None and array.dtype.kind in "iub" else got for size, got in
                      zip(sizes, array.shape, strict=True))  # fmt: skip
        found[name] = np.resize(array, shape)
    return found


def _plain(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """A made-up sample's inputs as a caller would send them."""
    found = dict(inputs)
    if "image" in found:
        buffer = io.BytesIO()
        found["image"].save(buffer, "PNG")
        found["image"] = buffer.getvalue()
    return found
