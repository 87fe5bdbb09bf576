"""Parquet files."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from limbeck.core.errors import DataError
from limbeck.core.parts import part
from limbeck.core.types import Rows
from limbeck.data.sources._base import NamedRows, Source, Table
from limbeck.data.sources._files import ends_with, existing_file, file_fingerprint

_IN_MEMORY = 2**26
"""Larger tables are unpacked into a temporary file, and not into memory."""


@part
class Parquet(Source):
    """A Parquet file. Class names that the `datasets` library wrote into it are understood."""

    path: Path

    @classmethod
    def shorthand(cls, value: Any) -> dict[str, Any] | None:
        return {"path": value} if ends_with(value, ".parquet") else None

    def load(self, split: str) -> Rows:
        import pyarrow
        from pyarrow.parquet import ParquetFile

        file = existing_file(self.path)
        try:
            with ParquetFile(file, memory_map=True) as opened:
                size = sum(opened.metadata.row_group(i).total_byte_size for i in range(opened.num_row_groups))
                table = opened.read() if size <= _IN_MEMORY else _unpacked(opened)
        except (pyarrow.ArrowException, OSError) as error:
            raise DataError(f"{self.path} is not a whole Parquet file", got=error, fix="fetch it again") from error
        names = table.column_names
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise DataError(f"{self.path} has two columns of one name", got=", ".join(repeated))
        classes = _classes(table.schema.metadata or {})
        return NamedRows(ArrowTable(table), origin=str(self.path), classes=classes)

    def fingerprint(self) -> str:
        return file_fingerprint(self.path)


class ArrowTable(Table):
    """Rows of an Arrow table; it stays in its packed form, a row becomes Python values when it is asked for."""

    def __init__(self, table: Any):
        self._table = table
        self.column_names = tuple(table.column_names)

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        row: Mapping[str, Any] = self._table.slice(index, 1).to_pylist()[0]
        return row

    def column(self, name: str) -> Sequence[Any]:
        values: list[Any] = self._table.column(name).to_pylist()
        return values


def _unpacked(opened: Any) -> Any:
    """A table that lies in a temporary Arrow file, mapped into memory; the file is gone when the table is."""
    import pyarrow

    with tempfile.NamedTemporaryFile(suffix=".arrow") as file:
        with pyarrow.ipc.new_stream(file, opened.schema_arrow) as writer:
            for batch in opened.iter_batches():
                writer.write_batch(batch)
        file.flush()
        with pyarrow.memory_map(file.name) as mapped, pyarrow.ipc.open_stream(mapped) as reader:
            return reader.read_all()


def _classes(metadata: Mapping[bytes, bytes]) -> dict[str, tuple[str, ...]]:
    """Names of classes by column, as `datasets` notes them in the files that it writes."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError):
        return {}
    return {
        column: tuple(feature["names"])
        for column, feature in features.items()
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and feature.get("names")
    }
