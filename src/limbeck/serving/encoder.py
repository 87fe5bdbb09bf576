"""What callers send in plain form, turned into a model's rows: texts that come at a time are read together."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from limbeck.core.errors import DataError
from limbeck.core.types import Sample
from limbeck.runtime.student import ServedStudent
from limbeck.serving.errors import BadRequest, Expired, TooLarge, unfit
from limbeck.serving.rows import Row, shortened, split
from limbeck.tasks import Task

Fields = Sequence[Mapping[str, Any]]
"""Of each row: its plain inputs by role."""
_QUICK = 2000
"""Letters that are encoded within a fraction of a millisecond."""
_TURN = 8000
"""Letters that are encoded in one turn of the event loop, at most; the rest waits for the next."""
_LONGEST_TEXT = 100_000
"""Characters; a model reads a few hundred tokens, and a tokenizer would work for seconds on a whole book."""
_PICTURES = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
"""Pillow knows more, and starts other programs for some of them."""
_MOST_PIXELS = 2**25
"""Of a picture; a file of a few kilobytes may unfold to gigabytes."""


class Encoder:
    """A student's tokenizer or image processor, as a server uses it.

    Args:
        student: whose it is.
        task: of the student.
        name: of its thread.
    """

    def __init__(self, student: ServedStudent, task: Task, name: str):
        self._student, self._task = student, task
        # A tokenizer or an image processor is not to be used by two threads at a time.
        self._reading = threading.RLock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"encode-{name}")
        self._waiting: list[tuple[Fields, int, asyncio.Future[list[Row]]]] = []  # of the event loop alone

    def encode(self, fields: Fields) -> list[Row]:
        """Plain inputs (texts, a picture's bytes) as rows of arrays.

        Raises:
            BadRequest: one of them cannot be read.
            TooLarge: a text is too long.
        """
        _check(fields)
        label = self._student.labels[0]  # a task reads whole rows; nobody looks at this one
        with self._reading:
            try:
                read = [self._task.read({**each, "label": label}, f"input {i}") for i, each in enumerate(fields)]
                samples = [Sample(str(i), inputs, label) for i, (inputs, _, _) in enumerate(read)]
                features = self._student.encode(samples)
            except DataError as error:
                raise unfit(error) from error
            rows = split(self._student.arrays(features))
        wanted = self._student.runner.inputs
        return [shortened(row, wanted, feature.length) for row, feature in zip(rows, features, strict=True)]

    async def read(self, fields: Fields, seconds: float) -> list[Row]:
        """The same: of short texts in this loop, which is quicker than to wait for a thread's turn; of others in one.

        Args:
            fields: of one request.
            seconds: that it may take.

        Raises:
            ServingError: the inputs cannot be read, or not in time.
        """
        letters = sum(len(value) if isinstance(value, str) else _QUICK for each in fields for value in each.values())
        loop = asyncio.get_running_loop()
        if letters < _QUICK:
            reading: asyncio.Future[list[Row]] = loop.create_future()
            if not self._waiting:
                loop.call_soon(self._read_waiting)
            self._waiting.append((fields, letters, reading))
            return await reading
        try:
            async with asyncio.timeout(seconds):
                return await loop.run_in_executor(self._thread, self.encode, fields)
        except TimeoutError as error:
            raise Expired("the deadline passed while the request was read") from error

    def close(self) -> None:
        """Read no more."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _read_waiting(self) -> None:
        """Encode what has come since the last turn, of all requests together."""
        count = letters = 0
        while count < len(self._waiting) and letters < _TURN:
            letters += self._waiting[count][1]
            count += 1
        turn, self._waiting = self._waiting[:count], self._waiting[count:]
        loop = asyncio.get_running_loop()
        if self._waiting:
            loop.call_soon(self._read_waiting)
        asked = [(fields, reading) for fields, _, reading in turn if not reading.done()]
        given = [fields for fields, _ in asked]
        if self._reading.acquire(blocking=False):
            try:
                _settle(asked, self._together(given))
            finally:
                self._reading.release()
        else:  # the thread is at a long text: it takes these next
            work = loop.run_in_executor(self._thread, self._together, given)
            work.add_done_callback(lambda done: _settle(asked, done.result()))

    def _together(self, given: Sequence[Fields]) -> list[list[Row] | Exception]:
        """Of each request its rows, or what is wrong with it."""
        try:
            rows = iter(self.encode([row for fields in given for row in fields]) if given else ())
        except Exception as error:
            if len(given) == 1:
                return [error]
            return [found for fields in given for found in self._together([fields])]  # one is at fault, not all
        return [[next(rows) for _ in fields] for fields in given]


def _settle(asked: Sequence[tuple[Fields, asyncio.Future[list[Row]]]], found: Sequence[list[Row] | Exception]) -> None:
    for (_, reading), each in zip(asked, found, strict=True):
        if reading.done():  # the caller has gone
            continue
        if isinstance(each, Exception):
            reading.set_exception(each)
        else:
            reading.set_result(each)


def _check(fields: Fields) -> None:
    """Refuse what would take too long, or too much memory, to read."""
    for value in (value for each in fields for value in each.values()):
        if isinstance(value, bytes):
            _check_picture(value)
        elif isinstance(value, str) and len(value) > _LONGEST_TEXT:
            raise TooLarge(f"a text has more than {_LONGEST_TEXT} characters")


def _check_picture(data: bytes) -> None:
    """Make sure that a picture is of a usual kind and size, by its head."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=_PICTURES) as picture:
            width, height = picture.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BadRequest("the picture cannot be read", allowed=", ".join(_PICTURES)) from error
    if width * height > _MOST_PIXELS:
        raise TooLarge(f"the picture has {width} x {height} pixels, of {_MOST_PIXELS} at most")
