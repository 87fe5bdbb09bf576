"""Draws of rows that are the same on every machine and hang on nothing but the seed and the rows' places.

Each row gets a random key, by its place in the source. A draw takes the rows with the smallest keys, so a
smaller draw is part of a larger one, and another draw (with a key stream of its own) does not move it.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from limbeck.core.errors import DataError

if TYPE_CHECKING:
    import numpy as np

# Streams of keys: what is held out and what is kept of the rest must not hang together.
_HOLD_OUT, _SUBSAMPLE = 0, 1


@dataclass(frozen=True)
class HeldOut:
    """Places of the rows that stay and of those that are held out, each in the source's order."""

    kept: list[int]
    held: list[int]
    stratified: bool


def hold_out(count: int, share: float, *, seed: int, groups: Sequence[Hashable] | None = None) -> HeldOut:
    """Hold out a share of the rows, each group in proportion where every group has two rows or more.

    Args:
        count: rows in the source.
        share: part of them to hold out, between 0 and 1.
        seed: draws the rows.
        groups: the class of each row, or None.

    Raises:
        DataError: fewer than two rows, or a negative seed.
    """
    if count < 2:
        raise DataError("one row cannot be parted into two splits", got=f"{count} rows", allowed="2 or more")
    wanted = min(max(int(share * count + 0.5), 1), count - 1)
    by_group: dict[Any, list[int]] = {}
    for place, group in enumerate(groups or ()):
        by_group.setdefault(group, []).append(place)
    stratified = groups is not None and all(len(places) > 1 for places in by_group.values())
    members: Mapping[Any, Sequence[int]] = by_group
    if not stratified:
        members = {None: range(count)}
    keys = _keys(count, seed, _HOLD_OUT)
    quotas = _quotas([len(places) for places in members.values()], wanted)
    chosen: set[int] = set()
    for places, quota in zip(members.values(), quotas, strict=True):
        chosen.update(_smallest(places, quota, keys))
    kept = [place for place in range(count) if place not in chosen]
    return HeldOut(kept, sorted(chosen), stratified)


def subsample(places: Sequence[int], size: int, *, count: int, seed: int) -> list[int]:
    """Keep `size` of the places, in their order; all of them if there are no more.

    Args:
        places: where the rows stand in the source.
        size: how many to keep.
        count: rows in the source.
        seed: draws the rows.

    Raises:
        DataError: a negative seed.
    """
    keys = _keys(count, seed, _SUBSAMPLE)
    return sorted(_smallest(places, size, keys))


def _smallest(places: Sequence[int], size: int, keys: np.ndarray) -> list[int]:
    """The places with the smallest keys."""
    import numpy as np

    places_N = np.asarray(places, dtype=np.int64)
    chosen: list[int] = places_N[np.argsort(keys[places_N], kind="stable")[:size]].tolist()
    return chosen


def _keys(count: int, seed: int, stream: int) -> np.ndarray:
    import numpy as np

    if seed < 0:
        raise DataError("data.seed is negative", got=seed, allowed="0 or more")
    return np.random.Generator(np.random.PCG64([seed, stream])).random(count)


def _quotas(sizes: Sequence[int], wanted: int) -> list[int]:
    """Parts of `wanted` in proportion to the sizes, by largest remainder; of each group at least one row stays."""
    total = sum(sizes)
    quotas = [size * wanted // total for size in sizes]
    by_remainder = sorted(range(len(sizes)), key=lambda i: (-(sizes[i] * wanted % total), i))
    left = wanted - sum(quotas)
    for i in by_remainder:
        if left > 0 and quotas[i] + 1 < sizes[i]:
            quotas[i] += 1
            left -= 1
    return quotas
