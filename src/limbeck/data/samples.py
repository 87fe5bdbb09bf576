"""Samples of large splits, made when they are asked for, and ids that differ at flat memory."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterable, Sequence
from typing import overload

import numpy as np

from limbeck.core.errors import DataError
from limbeck.core.types import Sample

AT_ONCE = 50_000
"""Splits of more rows than this stay where they are; a sample is made each time when it is asked for."""


class Samples(Sequence[Sample]):
    """Samples that are made anew whenever they are asked for; only the places of their rows are held.

    Args:
        places: the rows' places in the source.
        make: the sample of a place.
    """

    def __init__(self, places: Iterable[int], make: Callable[[int], Sample]):
        self._places, self._make = array("q", places), make

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> Sample: ...

    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...

    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        if isinstance(index, slice):
            return [self._make(place) for place in self._places[index]]
        return self._make(self._places[index])


class Joined(Sequence[Sample]):
    """Samples of one sequence, and behind them those of another; neither is copied."""

    def __init__(self, first: Sequence[Sample], second: Sequence[Sample]):
        self._first, self._second = first, second

    def __len__(self) -> int:
        return len(self._first) + len(self._second)

    @overload
    def __getitem__(self, index: int) -> Sample: ...

    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...

    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        first = len(self._first)
        return self._first[place] if place < first else self._second[place - first]


def samples_of(places: Sequence[int], make: Callable[[int], Sample]) -> Sequence[Sample]:
    """The samples of some rows: a list of few, or many that are made when they are asked for."""
    return Samples(places, make) if len(places) > AT_ONCE else [make(place) for place in places]


class DistinctIds:
    """Sees to it that no two samples have one id, with eight bytes for each.

    Recorded teacher signals are found by id, in any split: one id must never mean two rows.
    """

    def __init__(self) -> None:
        self._digests = array("Q")

    def add(self, name: str) -> None:
        """Take note of a sample's id."""
        digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
        self._digests.append(int.from_bytes(digest, "big"))

    def check(self, names: Iterable[str]) -> None:
        """Refuse ids that repeat.

        Args:
            names: all ids again; only looked at where digests repeat.

        Raises:
            DataError: two samples have one id.
        """
        digests, counts = np.unique(np.frombuffer(self._digests, dtype=np.uint64), return_counts=True)
        if len(digests) == len(self._digests):
            return
        suspects, seen = set(digests[counts > 1].tolist()), set()
        for name, digest in zip(names, self._digests, strict=True):
            if name in seen:
                fix = "name another column, or leave data.id out: rows are then numbered by split"
                raise DataError(f"two rows have the id '{name}'", allowed="ids that differ over all splits", fix=fix)
            if digest in suspects:
                seen.add(name)
