"""Texts of unequal length side by side in rows of equal length: which goes where.

N texts, R rows. Rows with the same room left are as good as each other, and so are texts of the same length: both are
handled as groups, with numpy. What comes out is best fit, longest first, as if the texts were placed one by one.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from limbeck.core.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Whole = NDArray[np.int64]


@dataclass(frozen=True)
class Packing:
    """Where each text lies.

    Attributes:
        row: its row, [N].
        start: its first position there, [N].
        rows: number of rows.
        fill: share of the rows' positions that hold text.
    """

    row: Whole
    start: Whole
    rows: int
    fill: float


def pack(lengths: Sequence[int] | Whole, capacity: int) -> Packing:
    """Best-fit decreasing: the longest first, each into the row where the least room is left over.

    A text of length L whose tightest row has room s goes there, and the next one too while room remains, as s - L is
    then the tightest of all. So floor(s / L) texts go into each row with room s, and all such rows at once. The
    packing is a function of the lengths and their order.

    Args:
        lengths: of the texts, [N], each from 1 to `capacity`.
        capacity: positions of a row.

    Returns:
        Rows and positions; nothing is cut.

    Raises:
        DataError: a text does not fit, or is empty.

    Reference:
        Ding et al., Fewer Truncations Improve Language Modeling, 2024, arXiv:2404.10830.
    """
    sizes = np.asarray(lengths, dtype=np.int64).reshape(-1)
    if len(sizes) and not (sizes.min() >= 1 and sizes.max() <= capacity):
        got = f"lengths from {sizes.min()} to {sizes.max()}"
        raise DataError("a text does not fit into a row", got=got, allowed=f"1 to {capacity}")
    if not len(sizes):
        return Packing(sizes, sizes.copy(), 0, 1.0)
    # A radix sort, where the numbers are small enough for one.
    keys = (capacity - sizes).astype(np.uint16) if capacity < 1 << 16 else capacity - sizes
    order = np.argsort(keys, kind="stable")
    rooms = _Rooms(capacity)
    row, start = np.empty_like(sizes), np.empty_like(sizes)
    edges = np.flatnonzero(np.diff(sizes[order], prepend=0, append=0))
    for first, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        length = int(sizes[order[first]])
        while first < end:
            room, rows = rooms.take(length, end - first)
            each = min(room // length, end - first)
            whole = min(len(rows), (end - first) // each)
            rooms.give_back(room, rows[whole:])
            rows = rows[:whole]
            items = order[first : first + whole * each]
            row[items] = np.repeat(rows, each)
            start[items] = capacity - room + length * np.tile(np.arange(each), whole)
            rooms.give_back(room - each * length, rows)
            first += whole * each
    return Packing(row, start, rooms.made, float(sizes.sum() / (rooms.made * capacity)))


class _Rooms:
    """Rows by the room that is left in them; an empty row is always to be had."""

    def __init__(self, capacity: int) -> None:
        self.capacity, self.made = capacity, 0
        self._sizes: list[int] = []
        self._rows: dict[int, list[Whole]] = {}

    def take(self, length: int, count: int) -> tuple[int, Whole]:
        """The smallest room of at least `length`, and all rows with it; empty rows for `count` texts if none has."""
        at = bisect_left(self._sizes, length)
        if at < len(self._sizes):
            size = self._sizes.pop(at)
            found = self._rows.pop(size)
            return size, found[0] if len(found) == 1 else np.concatenate(found)
        needed = -(-count // (self.capacity // length))
        self.made += needed
        return self.capacity, np.arange(self.made - needed, self.made)

    def give_back(self, size: int, rows: Whole) -> None:
        """Rows that have `size` positions left."""
        if size == 0 or not len(rows):
            return
        if size not in self._rows:
            insort(self._sizes, size)
            self._rows[size] = []
        self._rows[size].append(rows)
