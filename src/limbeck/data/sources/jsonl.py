"""JSON lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from limbeck.core.errors import DataError
from limbeck.core.parts import part
from limbeck.core.types import Rows
from limbeck.data.sources._base import Source
from limbeck.data.sources._files import ends_with, file_fingerprint, text_lines


@part
class JSONL(Source):
    """A file with one JSON object a line, plain or gzipped."""

    path: Path

    @classmethod
    def shorthand(cls, value: Any) -> dict[str, Any] | None:
        return {"path": value} if ends_with(value, ".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz") else None

    def load(self, split: str) -> Rows:
        rows: list[dict[str, Any]] = []
        blank = None
        for number, line in enumerate(text_lines(self.path), 1):
            if not line.strip():
                blank = blank or number
                continue
            # Blank lines end a file; between rows they would shift every row number after them.
            if blank is not None:
                raise DataError(f"{self.path}, line {blank} is blank", fix="remove it; every line holds one object")
            rows.append(self._row(line, number))
        return Rows(rows, origin=str(self.path), first=1)

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


def _short(line: str) -> str:
    text = line.strip()
    return text if len(text) <= 80 else f"{text[:80]}..."
