"""Tables in text: values parted by commas or tabs."""

from __future__ import annotations

import csv
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from limbeck.core.errors import DataError
from limbeck.core.parts import part
from limbeck.core.types import Rows
from limbeck.data.sources._base import Source, Table
from limbeck.data.sources._files import Lines, ends_with, file_fingerprint

_LONGEST_FIELD = 2**31 - 1


@part
class CSV(Source):
    """A text table with a header, plain or gzipped; all values are strings.

    `delimiter` is a comma where it is left out, or a tab for a `.tsv`. With `quotes: false` a double quote is
    a character like any other, as many `.tsv` files have it.
    """

    path: Path
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    quotes: bool = True

    @classmethod
    def shorthand(cls, value: Any) -> dict[str, Any] | None:
        return {"path": value} if ends_with(value, ".csv", ".tsv", ".csv.gz", ".tsv.gz") else None

    def load(self, split: str) -> Rows:
        lines = Lines(self.path)
        reader = self._reader(lines)
        with _long_fields():
            records = self._records(reader)
            header = self._header(next(records, None))
            ends = array("q", [reader.line_num])  # of each record: the line after its last
            for _ in self._even(records, header, reader):
                ends.append(reader.line_num)
        return Rows(_Records(lines, ends, header, self._reader), origin=str(self.path), first=2)

    def _reader(self, lines: Iterable[str]) -> Any:
        return csv.reader(
            lines,
            delimiter=self.delimiter or ("\t" if ends_with(str(self.path), ".tsv", ".tsv.gz") else ","),
            quoting=csv.QUOTE_MINIMAL if self.quotes else csv.QUOTE_NONE,
            strict=True,
        )

    def _records(self, reader: Any) -> Iterator[list[str]]:
        try:
            yield from reader
        except csv.Error as error:
            what = f"{self.path}, line {reader.line_num} is malformed: {error}"
            raise DataError(what, fix="double the quotes inside a quoted value, or set `quotes: false`") from error

    def _header(self, header: list[str] | None) -> list[str]:
        if not header:
            raise DataError(f"{self.path} has no header", fix="name the columns in the first line")
        for position, name in enumerate(header, 1):
            if not name.strip():
                raise DataError(f"{self.path}, row 1: column {position} has no name", got=header)
            if header.count(name) > 1:
                raise DataError(f"{self.path}, row 1 names the column '{name}' twice", got=header)
        return header

    def _even(self, records: Iterator[list[str]], header: list[str], reader: Any) -> Iterator[list[str]]:
        blank = None
        for number, record in enumerate(records, 2):
            # A value may span lines, so the row of a table and the line of its file can differ.
            line = reader.line_num
            where = f"{self.path}, row {number}" + (f" (line {line})" if line != number else "")
            if not record:
                blank = blank or where
            elif blank:
                raise DataError(f"{blank} is blank", fix="remove it")
            elif len(record) != len(header):
                what = f"{where} has {len(record)} values for {len(header)} columns"
                raise DataError(what, got=record, allowed=header)
            else:
                yield record

    def fingerprint(self) -> str:
        return file_fingerprint(self.path)


class _Records(Table):
    """Rows that stay in their file; each is read when it is asked for."""

    def __init__(self, lines: Lines, ends: array[int], header: list[str], reader: Callable[[Iterable[str]], Any]):
        self._lines, self._ends, self._reader, self.column_names = lines, ends, reader, tuple(header)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        with _long_fields():
            record = next(self._reader(self._lines[i] for i in range(self._ends[index], self._ends[index + 1])))
        return dict(zip(self.column_names, record, strict=True))


@contextmanager
def _long_fields() -> Iterator[None]:
    """The library refuses values over 128 KiB unless told otherwise, for the whole process."""
    before = csv.field_size_limit(_LONGEST_FIELD)
    try:
        yield
    finally:
        csv.field_size_limit(before)
