"""Rows on which the student and the model behind it disagree, kept for the next round of training.

Off unless it is asked for: these are texts and pictures of the people who use the server. One line of JSON a row in
`feedback-000001.jsonl` and so on, each on the disk before the next batch begins; a new process begins a new file.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from limbeck.core.artifacts import digest_of, locked, sync_folder
from limbeck.data.feedback import FOLDER
from limbeck.serving.metrics import Metrics

_LOG = logging.getLogger(__name__)
_WAITING = 1024
"""Rows that wait to be written; beyond, they are dropped and counted."""
_KNOWN = 100_000
"""Rows that are remembered, so that the same one is not written twice."""


def open_feedback(run: Path, metrics: Metrics) -> Feedback:
    """Where a run's server keeps them, counted.

    Raises:
        ArtifactError: another server keeps them there.
    """
    return Feedback(run / FOLDER, count=lambda outcome: metrics.feedback_rows.labels(outcome).inc())


class Feedback:
    """Writes rows in a thread of its own; nobody waits for it.

    Args:
        folder: of the files; for one process at a time.
        max_bytes: of all files together; what comes beyond is dropped and counted.
        shard_bytes: after which a new file is begun.
        count: told what became of each row: stored, repeated, full, busy or failed.

    Raises:
        ArtifactError: another process writes there.
    """

    def __init__(
        self,
        folder: Path,
        *,
        max_bytes: int = 64 * 2**20,
        shard_bytes: int = 4 * 2**20,
        count: Callable[[str], None] = lambda outcome: None,
    ):
        self.folder, self._most, self._shard, self._count = folder, max_bytes, shard_bytes, count
        self._stack = ExitStack()
        self._stack.enter_context(locked(folder))
        folder.chmod(0o700)
        files = sorted(folder.glob("feedback-*.jsonl"))
        self._bytes = sum(each.stat().st_size for each in files)
        numbers = (each.stem.rpartition("-")[2] for each in files)
        self._number = max((int(each) for each in numbers if each.isdecimal()), default=0)
        self._file: int | None = None
        self._size = 0
        self._known: OrderedDict[str, None] = OrderedDict()
        self._queue: queue.Queue[dict[str, Any] | None] = queue.Queue(_WAITING)
        self._thread = threading.Thread(target=self._work, name="feedback", daemon=True)
        self._thread.start()

    def add(self, fields: Mapping[str, Any], label: str, **facts: Any) -> None:
        """Keep a row.

        Args:
            fields: what was asked: texts, or a picture's bytes.
            label: what the model behind the student said.
            facts: what else is known: the student's label and confidence, who answered.
        """
        inputs = {k: {"base64": base64.b64encode(v).decode()} if isinstance(v, bytes) else v for k, v in fields.items()}
        row = {"inputs": inputs, "label": label, **facts, "time": round(time.time(), 3)}
        try:
            self._queue.put_nowait(row)
        except queue.Full:
            self._count("busy")

    def close(self) -> None:
        """Write what waits, and let the folder go."""
        self._queue.put(None)
        self._thread.join()
        if self._file is not None:
            os.close(self._file)
            self._file = None
        self._stack.close()

    def _work(self) -> None:
        while (first := self._queue.get()) is not None:
            batch, over = [first], False
            while not self._queue.empty() and len(batch) < 256:
                if (row := self._queue.get()) is None:
                    over = True
                    break
                batch.append(row)
            self._write(batch)
            if over:
                return

    def _write(self, batch: list[dict[str, Any]]) -> None:
        lines: list[bytes] = []
        keys: list[str] = []
        for row in batch:
            key, line = digest_of(row["inputs"]), json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
            if key in self._known:
                self._known.move_to_end(key)
                self._count("repeated")
            elif self._bytes + sum(map(len, lines)) + len(line) > self._most:
                self._count("full")
            else:
                self._known[key] = None
                lines.append(line)
                keys.append(key)
        while len(self._known) > _KNOWN:
            self._known.popitem(last=False)
        if not lines:
            return
        try:
            self._append(b"".join(lines))
        except OSError as error:  # a full disk: the server goes on
            _LOG.error("feedback is not written", extra={"error": type(error).__name__})
            for key in keys:
                self._known.pop(key, None)
                self._count("failed")
            return
        for _ in lines:
            self._count("stored")

    def _append(self, data: bytes) -> None:
        if self._file is None or self._size >= self._shard:
            self._open()
        assert self._file is not None
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(self._file, left) :]
            os.fsync(self._file)
        except OSError:
            os.close(self._file)  # what is in it may end in half a line; nothing more is put behind that
            self._file = None
            raise
        self._size += len(data)
        self._bytes += len(data)

    def _open(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
        self._number += 1
        path = self.folder / f"feedback-{self._number:06d}.jsonl"
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        self._size = 0
        sync_folder(self.folder)
