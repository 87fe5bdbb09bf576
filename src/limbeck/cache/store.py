"""A finished recording: looked up by what a batch holds, in any order, batch size or packing.

codec.json           how distributions and features are kept
codec.safetensors    where a codec has tables
shard-00000.bin, .idx ...
manifest.json        whose signals these are (see `Facts`), the shards and their sizes
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save
from torch import Tensor

from limbeck.cache import features
from limbeck.cache.codecs import Codec, Ranked, codec_from
from limbeck.cache.content import Place
from limbeck.cache.shards import ENTRY, Reader, blocks_in, paths_of
from limbeck.core.artifacts import read_manifest, sha256_of, write_atomically, write_json
from limbeck.core.errors import ArtifactError, DataError
from limbeck.core.types import Dist

VERSION = 2
CODEC, TABLES = "codec.json", "codec.safetensors"
AGAIN = "record it again: limbeck cache RECIPE --force"


@dataclass(frozen=True)
class Facts:
    """Whose signals a recording holds, and what they were made from.

    Attributes:
        teacher: digest of weights, config, adapters and code.
        tokenizer: digest of the tokenizer or image processor.
        template: digest of what stands around a text: chat template, separator and the like.
        vocabulary: classes of the distribution.
        temperature: always 1: terms soften what they read.
        version: of the files.
    """

    teacher: str
    tokenizer: str
    template: str
    vocabulary: int
    temperature: float = 1.0
    version: int = VERSION

    def check(self, found: Mapping[str, Any], where: Path) -> None:
        """Refuse a recording of something else.

        Raises:
            ArtifactError: a field differs; the first is named.
        """
        for name, wanted in reversed(asdict(self).items()):
            if found.get(name) != wanted:
                raise ArtifactError(
                    f"{where} was recorded with another {name}", got=found.get(name), allowed=wanted, fix=AGAIN
                )


@dataclass(frozen=True)
class Format:
    """How signals are kept.

    Attributes:
        codec: of distributions; None where no term reads them.
        features: the layers that are kept, sorted.
        dtype: float16 or int8.
    """

    codec: Codec | None
    features: tuple[str, ...] = ()
    dtype: str = "float16"

    def save(self, folder: Path) -> None:
        """Write it, its tables first: the JSON file tells that all is there."""
        if isinstance(self.codec, Ranked):
            write_atomically(folder / TABLES, save({"order": self.codec.order}))
        config = None if self.codec is None else self.codec.config
        write_json(folder / CODEC, {"codec": config, "features": list(self.features), "dtype": self.dtype})

    @classmethod
    def load(cls, folder: Path) -> Format:
        """Read what `save` wrote."""
        told = json.loads((folder / CODEC).read_text(encoding="utf-8"))
        order = load_file(folder / TABLES)["order"] if (folder / TABLES).exists() else None
        codec = None if told["codec"] is None else codec_from(told["codec"], order)
        return cls(codec, tuple(told["features"]), told["dtype"])


_SPENT = ("distribution_bytes", "index_bytes")
"""Sizes of a shard that the budget of a token covers."""


def describe(folder: Path, facts: Facts, shards: int) -> dict[str, Any]:
    """What the manifest tells of a recording, from its files; `bytes_per_token` is what they take, index included."""
    told = []
    for number in range(shards):
        data, index = paths_of(folder, number)
        blocks = blocks_in(index.read_bytes())
        entries = [block.entries for block in blocks]
        told.append(
            {
                "blocks": len(blocks),
                "samples": sum(map(len, entries)),
                "rows": int(sum(each["rows"].sum() for each in entries)),
                "bytes": data.stat().st_size,
                "index_bytes": index.stat().st_size,
                "distribution_bytes": int(sum(each["size"].sum() for each in entries)),
            }
        )
    made = json.loads((folder / CODEC).read_text(encoding="utf-8"))
    spent, tokens = (sum(each[name] for name in names for each in told) for names in (_SPENT, ("rows",)))
    per_token = spent / tokens if tokens else 0.0
    return {**asdict(facts), "format": made, "shards": told, "bytes_per_token": per_token}


class Cache:
    """A finished recording, memory-mapped.

    Args:
        folder: where it lies.
        expect: what it must be a recording of; None: whatever it is.

    Raises:
        ArtifactError: there is none, it is damaged, or a recording of something else.
    """

    def __init__(self, folder: Path, expect: Facts | None = None):
        manifest = read_manifest(folder)
        if "cache" not in manifest:
            raise ArtifactError(f"{folder} is no recording of a teacher", got=manifest.get("kind"), fix="limbeck cache")
        self.folder, self.facts = folder, manifest["cache"]
        if expect is not None:
            expect.check(self.facts, folder)
        elif self.facts.get("version") != VERSION:
            raise ArtifactError(
                f"{folder} has another version", got=self.facts.get("version"), allowed=VERSION, fix=AGAIN
            )
        for name in (CODEC, TABLES):
            told = manifest["files"].get(name)
            if told is not None and (not (folder / name).is_file() or sha256_of(folder / name) != told["sha256"]):
                raise ArtifactError(f"{folder / name} is damaged: it is missing or has changed", fix=AGAIN)
        self.format = Format.load(folder)
        self.shards = [Reader(folder, number, told) for number, told in enumerate(self.facts["shards"])]
        entries = [shard.entries for shard in self.shards]
        self.entries = np.concatenate(entries) if entries else np.zeros(0, ENTRY)
        self._shard = np.repeat(np.arange(len(entries)), [len(each) for each in entries])
        self._order = np.lexsort((self.entries["key"], self.entries["id"]))
        self._ids, self._keys = self.entries["id"][self._order], self.entries["key"][self._order]

    def __len__(self) -> int:
        return len(self.entries)

    def find(self, place: Place, sample: str) -> int:
        """Where a sample lies among `entries`.

        Raises:
            DataError: it was not recorded, or something else was under its id; what differs is named.
        """
        id_, key = place.key
        low, high = (int(np.searchsorted(self._ids, np.uint64(id_), side=side)) for side in ("left", "right"))
        at = low + int(np.searchsorted(self._keys[low:high], np.uint64(key)))
        if at < high and self._keys[at] == key:
            return int(self._order[at])
        if low == high:
            raise DataError(
                f"the teacher's recording holds no sample '{sample}'", got=f"{len(self):,} others", fix=AGAIN
            )
        same = (self.entries["inputs"][self._order[low:high]] == place.inputs).any()
        what = "the positions of its labels" if same else "its text, template or tokens (or its picture)"
        raise DataError(f"sample '{sample}' is not as it was when the teacher was recorded: {what} differ", fix=AGAIN)

    def dist(self, found: Sequence[int]) -> Dist:
        """The distributions of samples, all rows one after the other."""
        assert self.format.codec is not None, "asked for distributions, of which none were recorded"
        entries = self.entries[list(found)]
        data = [self.shards[self._shard[i]].read(entry)[0] for i, entry in zip(found, entries, strict=True)]
        return self.format.codec.read(data, entries["rows"].astype(np.int64), str(self.folder))

    def features(self, found: Sequence[int]) -> list[dict[str, Tensor]]:
        """By path, what was recorded of each sample's layers, without padding."""
        names, told = self.format.features, []
        for i in found:
            data = self.shards[self._shard[i]].read(self.entries[i])[1]
            told.append(dict(zip(names, features.read(data, len(names), self.format.dtype), strict=True)))
        return told

    def figures(self) -> dict[str, float]:
        """Sizes: `samples`, `tokens` (rows of distributions), `bytes` with index and tables, `bytes_per_token`."""
        told: Sequence[Mapping[str, int]] = self.facts["shards"]
        tables = sum(path.stat().st_size for path in self.folder.glob("codec.*"))
        tokens = sum(each["rows"] for each in told)
        index = sum(each["index_bytes"] for each in told)
        return {
            "samples": len(self),
            "tokens": tokens,
            "bytes": tables + index + sum(each["bytes"] for each in told),
            "bytes_per_token": self.facts["bytes_per_token"],
        }


def entry_of(place: Place) -> NDArray[Any]:
    """A sample's entry, but for where its bytes lie."""
    entry = np.zeros((), dtype=ENTRY)
    entry["id"], entry["key"] = place.key
    entry["inputs"], entry["rows"] = place.inputs, place.rows
    return entry
