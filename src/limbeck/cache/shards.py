"""Shards: files of blocks that only grow, each with an index, and every block with checksums.

    shard-00000.bin   blocks, one after the other: the bytes of samples
    shard-00000.idx   for each block: `magic | samples | place | bytes | crc of the block` (little-endian), an entry
                      for each of its samples, and the crc of all that

A block counts once its record in the index is whole. Whatever a kill left behind it is cut off, so that a recording
that goes on writes the bytes that it would have written.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from limbeck.core.errors import ArtifactError

MAGIC = b"LBK1"
RECORD = struct.Struct("<4sIQQI")
CRC = struct.Struct("<I")
ENTRY = np.dtype(
    [
        ("id", "<u8"),
        ("key", "<u8"),
        ("inputs", "<u8"),
        ("offset", "<u8"),
        ("size", "<u4"),
        ("features", "<u4"),
        ("rows", "<u4"),
    ]
)
"""Hashes of id, content and inputs; where the sample's bytes begin in its file; bytes of distributions and of
features; rows of distributions."""


@dataclass(frozen=True)
class Block:
    """A block as the index tells of it."""

    offset: int
    size: int
    crc: int
    entries: NDArray[Any]


def paths_of(folder: Path, number: int) -> tuple[Path, Path]:
    """Data and index of a shard."""
    return folder / f"shard-{number:05}.bin", folder / f"shard-{number:05}.idx"


def blocks_in(index: bytes) -> list[Block]:
    """The whole blocks that an index begins with."""
    found, at = [], 0
    while at + RECORD.size <= len(index):
        magic, samples, offset, size, crc = RECORD.unpack_from(index, at)
        end = at + RECORD.size + samples * ENTRY.itemsize
        if magic != MAGIC or end + CRC.size > len(index) or CRC.unpack_from(index, end)[0] != zlib.crc32(index[at:end]):
            break
        found.append(Block(offset, size, crc, np.frombuffer(index[at + RECORD.size : end], dtype=ENTRY)))
        at = end + CRC.size
    return found


def length_of(blocks: Sequence[Block]) -> int:
    """Bytes of an index that holds these blocks."""
    return sum(RECORD.size + CRC.size + len(block.entries) * ENTRY.itemsize for block in blocks)


class Writer:
    """Adds blocks to a shard, behind those that an interrupted recording left whole.

    Args:
        folder: where the shards lie.
        number: which one.

    Attributes:
        blocks: how many are there.
    """

    def __init__(self, folder: Path, number: int):
        data, index = paths_of(folder, number)
        data.touch()
        index.touch()
        known = _sound(data, blocks_in(index.read_bytes()))
        self.blocks = len(known)
        self.end = known[-1].offset + known[-1].size if known else 0
        self.data, self.index = _cut(data, self.end), _cut(index, length_of(known))

    def add(self, keys: NDArray[Any], samples: Sequence[bytes], features: Sequence[bytes]) -> None:
        """One block; its record is written after its data.

        Args:
            keys: entries with `id`, `key`, `inputs` and `rows`; the rest is filled in.
            samples: distributions of each.
            features: features of each.
        """
        content = b"".join(part for pair in zip(samples, features, strict=True) for part in pair)
        entries = keys.copy()
        entries["size"] = [len(each) for each in samples]
        entries["features"] = [len(each) for each in features]
        whole = entries["size"].astype(np.uint64) + entries["features"]
        entries["offset"] = self.end + np.cumsum(whole) - whole
        record = RECORD.pack(MAGIC, len(entries), self.end, len(content), zlib.crc32(content)) + entries.tobytes()
        for file, bytes_ in ((self.data, content), (self.index, record + CRC.pack(zlib.crc32(record)))):
            file.write(bytes_)
            file.flush()
        self.end += len(content)
        self.blocks += 1

    def close(self) -> None:
        """No more blocks."""
        self.data.close()
        self.index.close()


def _sound(data: Path, blocks: Sequence[Block]) -> list[Block]:
    """The first blocks whose bytes are what their records say."""
    sound = []
    with data.open("rb") as file:
        for block in blocks:
            content = file.read(block.size)
            if len(content) != block.size or zlib.crc32(content) != block.crc:
                break
            sound.append(block)
    return sound


def _cut(path: Path, size: int) -> IO[bytes]:
    file = path.open("r+b")
    file.truncate(size)
    file.seek(size)
    return file


class Reader:
    """The blocks of a finished shard; a block is checked when something of it is first read.

    Args:
        folder: where the shards lie.
        number: which one.
        told: what the manifest says of it: `blocks`, `bytes`.

    Raises:
        ArtifactError: a file is missing, cut short or changed.
    """

    def __init__(self, folder: Path, number: int, told: dict[str, int]):
        self.path, index = paths_of(folder, number)
        for path in (self.path, index):
            if not path.is_file():
                raise _damaged(path, "it is missing")
        content = index.read_bytes()
        blocks = blocks_in(content)
        if len(blocks) != told["blocks"] or length_of(blocks) != len(content):
            raise _damaged(index, f"{len(blocks)} of {told['blocks']} blocks are whole")
        if self.path.stat().st_size != told["bytes"]:
            raise _damaged(self.path, f"{self.path.stat().st_size} bytes, not {told['bytes']}")
        self.blocks = blocks
        self.entries = np.concatenate([block.entries for block in blocks]) if blocks else np.zeros(0, ENTRY)
        self._starts = np.array([block.offset for block in blocks])
        self._checked = np.zeros(len(blocks), dtype=bool)
        self._map: memoryview | None = None

    def read(self, entry: NDArray[Any]) -> tuple[memoryview, memoryview]:
        """Distributions and features of a sample.

        Raises:
            ArtifactError: the block that holds them has changed.
        """
        if self._map is None:  # an empty file cannot be mapped
            whole: Any = np.memmap(self.path, np.uint8, mode="r") if self.path.stat().st_size else b""
            self._map = memoryview(whole)
        start = int(entry["offset"])
        number = int(np.searchsorted(self._starts, start, side="right")) - 1
        if not self._checked[number]:
            block = self.blocks[number]
            if zlib.crc32(self._map[block.offset : block.offset + block.size]) != block.crc:
                raise _damaged(self.path, f"block {number} has changed")
            self._checked[number] = True
        middle = start + int(entry["size"])
        return self._map[start:middle], self._map[middle : middle + int(entry["features"])]


def _damaged(path: Path, what: str) -> ArtifactError:
    return ArtifactError(f"{path} is damaged: {what}", fix=f"remove {path.parent} and record it again")
