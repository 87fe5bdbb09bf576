"""JSON lines."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from limbeck.core.errors import DataError
from limbeck.core.parts import part
from limbeck.core.types import Rows
from limbeck.data.sources._base import Source, Table
from limbeck.data.sources._files import Lines, ends_with, file_fingerprint


@part
class JSONL(Source):
    """A file with one JSON object a line, plain or gzipped."""

    path: Path

    @classmethod
    def shorthand(cls, value: Any) -> dict[str, Any] | None:
        return {"path": value} if ends_with(value, ".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz") else None

    def load(self, split: str) -> Rows:
        lines, count, names = Lines(self.path), 0, dict[str, None]()
        blank = None
        for number, line in enumerate(lines, 1):
            if not line.strip():
                blank = blank or number
                continue
            # Blank lines end a file; between rows they would shift every row number after them.
            if blank is not None:
                raise DataError(f"{self.path}, line {blank} is blank", fix="remove it; every line holds one object")
            names |= dict.fromkeys(self._row(line, number))
            count += 1
        return Rows(_Objects(lines, count, tuple(names)), origin=str(self.path), first=1)

    def _row(self, line: str, number: int) -> dict[str, Any]:
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"{self.path}, line {number} is not JSON: {error}", got=_short(line)) from error
        if not isinstance(row, dict):
            what = f"{self.path}, line {number} is not a JSON object"
            raise DataError(what, got=_short(line), allowed='{"column": value, ...}')
        return row

    def fingerprint(self) -> str:
        return file_fingerprint(self.path)


class _Objects(Table):
    """Rows that stay in their file; each is read when it is asked for."""

    def __init__(self, lines: Lines, count: int, names: tuple[str, ...]):
        self._lines, self._count, self.column_names = lines, count, names

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        row: dict[str, Any] = json.loads(self._lines[index])
        return row

    def column(self, name: str) -> Sequence[Any]:
        return [self[index].get(name) for index in range(len(self))]


def _short(line: str) -> str:
    text = line.strip()
    return text if len(text) <= 80 else f"{text[:80]}..."
