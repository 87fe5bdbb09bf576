"""Logs that grow: only what was added is read, and a long one is kept as means of neighbours."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from limbeck.core.errors import ArtifactError
from limbeck.report.curves import POINTS
from limbeck.report.facts import finite

_KNOWN_END = 64


class Tail:
    """The end of a JSONL file that another process writes.

    A line without its line break is still being written and is left for the next time. The file may be renamed or
    replaced: it is the same log as long as what was read last still stands in its place.
    """

    def __init__(self) -> None:
        self.read_to = 0
        self._end = b""

    def read(self, path: Path) -> tuple[bool, list[dict[str, Any]]]:
        """The lines that were added, and whether they are to take the place of all that were read before.

        Raises:
            ArtifactError: a line is not JSON.
        """
        read_to, end = self.read_to, self._end
        try:
            with path.open("rb") as file:
                file.seek(read_to - len(end))
                new = file.read()
                if anew := not new.startswith(end):
                    file.seek(0)
                    read_to, end, new = 0, b"", file.read()
        except FileNotFoundError:
            anew, read_to, end, new = read_to > 0, 0, b"", b""
        added = new[len(end) : new.rfind(b"\n") + 1]
        try:
            rows = [json.loads(line) for line in added.splitlines()]
        except ValueError as error:
            raise ArtifactError(f"{path} is damaged: a line is not JSON", got=str(error)) from error
        self.read_to = read_to + len(added)
        self._end = (end + added[-_KNOWN_END:])[-_KNOWN_END:]
        return anew, rows


class Thinned:
    """The rows of a training's log, as many as can be drawn; each stands for `every` steps of one stage."""

    def __init__(self) -> None:
        self.every = 1
        self._whole: list[dict[str, Any]] = []
        self._open: list[dict[str, Any]] = []

    def add(self, row: dict[str, Any]) -> None:
        """Take in one more step."""
        if self._open and self._open[-1].get("stage") != row.get("stage"):
            self._close()
        self._open.append(row)
        if len(self._open) == self.every:
            self._close()

    def rows(self) -> list[dict[str, Any]]:
        """The log so far."""
        return [*self._whole, *([mean(self._open)] if self._open else [])]

    def _close(self) -> None:
        self._whole.append(mean(self._open))
        self._open = []
        if len(self._whole) < POINTS:
            return
        self.every *= 2
        halved: list[dict[str, Any]] = []
        at = 0
        while at < len(self._whole):
            pair = self._whole[at : at + 2]
            if len({row.get("stage") for row in pair}) > 1:
                pair = pair[:1]
            halved.append(mean(pair))
            at += len(pair)
        self._whole = halved


def mean(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One row for several: the mean of what can be drawn, at the last one's step."""
    last = rows[-1]
    names = dict.fromkeys(name for row in rows for name in row.get("terms") or {})
    found = {"step": last.get("step"), "stage": last.get("stage", "")}
    found |= {key: _mean([row.get(key) for row in rows]) for key in ("loss", "grad_norm", "learning_rate")}
    found["terms"] = {name: _mean([(row.get("terms") or {}).get(name) for row in rows]) for name in names}
    return found


def _mean(values: Sequence[Any]) -> float | None:
    known = [value for value in values if finite(value)]
    return sum(known) / len(known) if known else None
