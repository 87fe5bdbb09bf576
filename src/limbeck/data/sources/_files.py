"""Files as sources meet them: plain or gzipped, there or not, whole or damaged."""

from __future__ import annotations

import gzip
import os
import tempfile
import weakref
import zlib
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from limbeck.core.artifacts import digest_of, sha256_of
from limbeck.core.errors import DataError

# A bare string that ends like this is meant as a file, never as a folder or a name on the hub.
_TEXT = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".txt", ".xml")
_BINARY = (".parquet", ".arrow", ".npz", ".npy", ".xlsx")
_PACKED = (".gz", ".zip", ".tar", ".zst", ".xz", ".bz2")
DATA_SUFFIXES = _TEXT + _BINARY + _PACKED


def ends_with(value: Any, *suffixes: str) -> bool:
    """Whether a recipe's value is a string that ends with one of the suffixes, in any case."""
    return isinstance(value, str) and value.lower().endswith(suffixes)


def expanded(path: str | Path) -> Path:
    """A path with the home folder in place of a leading `~`."""
    return Path(os.path.expanduser(path))


def existing_file(path: Path) -> Path:
    """The path of a file that is there.

    Raises:
        DataError: it is not, or it is a folder.
    """
    path = expanded(path)
    if path.is_dir():
        raise DataError(f"{path} is a folder, not a file", fix="name a file inside it")
    if not path.is_file():
        raise DataError(f"there is no file at {path}", fix=_where_to_look())
    return path


def existing_folder(path: Path) -> Path:
    """The path of a folder that is there.

    Raises:
        DataError: it is not, or it is a file.
    """
    path = expanded(path)
    if not path.is_dir():
        what = f"{path} is a file, not a folder" if path.is_file() else f"there is no folder at {path}"
        raise DataError(what, fix=_where_to_look())
    return path


def _where_to_look() -> str:
    return f"check data.train, data.validation and data.test; relative paths start at {Path.cwd()}"


class Lines:
    """The lines of a UTF-8 file, each with its own ending; of each, only its place in the file is held in memory.

    Going through them from the first to the last finds the places; then any line can be read again. What is
    packed is unpacked into a temporary file on the way.

    Args:
        path: the file; one that ends with `.gz` is unpacked.

    Raises:
        DataError: the file is missing.
    """

    def __init__(self, path: Path):
        self.path, self.file = path, existing_file(path)
        self._starts = array("q", [0])
        with tempfile.TemporaryFile() if self._is_packed else self.file.open("rb") as opened:
            # A number and no file object: rows live on where nobody is left to close it.
            self._descriptor = os.dup(opened.fileno())
        weakref.finalize(self, os.close, self._descriptor)

    @property
    def _is_packed(self) -> bool:
        return self.file.suffix.lower() == ".gz"

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __iter__(self) -> Iterator[str]:
        """All lines.

        Raises:
            DataError: the file is cut short, or a line is not UTF-8.
        """
        number, starts = 0, array("q", [0])
        try:
            with gzip.open(self.file, "rb") if self._is_packed else self.file.open("rb") as stream:
                # Bytes are cut at \n before they are decoded, so that an error knows its line.
                for number, raw in enumerate(stream, 1):
                    if self._is_packed:
                        os.pwrite(self._descriptor, raw, starts[-1])
                    starts.append(starts[-1] + len(raw))
                    yield _decoded(raw, number)
        except UnicodeDecodeError as error:
            what, got = f"{self.path}, line {number} is not UTF-8 text", error.object[error.start : error.start + 8]
            raise DataError(what, got=repr(got), fix="convert it to UTF-8") from error
        except (OSError, EOFError, zlib.error) as error:
            what = f"{self.path} cannot be read after line {number}"
            raise DataError(what, got=error, fix="fetch the file again") from error
        self._starts = starts

    def __getitem__(self, index: int) -> str:
        """A line by its place, from 0; IndexError beyond the last that was gone through."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        start, stop = self._starts[index], self._starts[index + 1]
        return _decoded(os.pread(self._descriptor, stop - start, start), index + 1)


def _decoded(raw: bytes, number: int) -> str:
    return raw.decode("utf-8-sig" if number == 1 else "utf-8")


def file_fingerprint(path: Path) -> str:
    """The digest of a file's bytes.

    Raises:
        DataError: the file does not exist.
    """
    return sha256_of(existing_file(path))


def folder_fingerprint(folder: Path, files: Iterable[Path]) -> str:
    """A digest of the files' names within the folder and of their bytes."""
    return digest_of({file.relative_to(folder).as_posix(): sha256_of(file) for file in files})
