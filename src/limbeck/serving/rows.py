"""A batch's arrays taken apart into rows, and rows of many callers put together into a batch."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from limbeck.runtime import Arrays, Tensors
from limbeck.serving.errors import BadRequest

Row = Mapping[str, NDArray[np.generic]]
"""One row's arrays by name, without the axis of rows."""


def split(arrays: Arrays) -> list[Row]:
    """The rows of a batch.

    Args:
        arrays: all with the same number of rows.
    """
    count = len(next(iter(arrays.values())))
    return [{name: array[i] for name, array in arrays.items()} for i in range(count)]


def shortened(row: Row, wanted: Mapping[str, Tensors], length: int) -> Row:
    """A row without the padding that a longer one brought into its batch.

    Args:
        row: padded at the end.
        wanted: what the model takes.
        length: tokens of the row itself.
    """
    found = dict(row)
    for name, tensors in wanted.items():
        array = row.get(name)
        if array is not None and _padded(array):
            for axis, (size, got) in enumerate(zip(tensors.shape[1:], array.shape, strict=True)):
                if size is None and got > length:
                    found[name] = found[name][(slice(None),) * axis + (slice(length),)]
    return found


def length_of(row: Row, wanted: Mapping[str, Tensors]) -> int:
    """A row's tokens: the size of its integers along the axes that may be of any size; 1 where there are none."""
    free = _free(row, wanted)
    return max((size for name, sizes in free.items() if _padded(row[name]) for size in sizes), default=1)


def group_of(row: Row, wanted: Mapping[str, Tensors]) -> Hashable:
    """What rows of a batch must have in common: the shapes of what cannot be padded, like pixels."""
    return tuple((name, row[name].shape) for name in _free(row, wanted) if not _padded(row[name]))


def stack(rows: Sequence[Row], fill: Mapping[str, int]) -> dict[str, NDArray[np.generic]]:
    """One batch; integers are padded at the end.

    Args:
        rows: of one group.
        fill: what an input is padded with; 0 where it is not named.
    """
    return {name: _stacked([row[name] for row in rows], fill.get(name, 0)) for name in rows[0]}


def _stacked(arrays: Sequence[NDArray[np.generic]], fill: int) -> NDArray[np.generic]:
    shapes = {array.shape for array in arrays}
    if len(shapes) == 1:
        return np.stack(arrays)
    sizes = tuple(map(max, zip(*shapes, strict=True)))
    padded = np.full((len(arrays), *sizes), fill, dtype=arrays[0].dtype)
    for whole, array in zip(padded, arrays, strict=True):
        whole[tuple(slice(size) for size in array.shape)] = array
    return padded


def check(arrays: Arrays, wanted: Mapping[str, Tensors]) -> dict[str, NDArray[np.generic]]:
    """Arrays that a caller gives, made sure to be what a model takes.

    Raises:
        BadRequest: one is missing, unknown, or of another type or shape, or they do not fit each other.
    """
    if missing := sorted(wanted.keys() - arrays.keys()):
        raise BadRequest(f"the input `{missing[0]}` is missing", allowed=", ".join(wanted))
    if unknown := sorted(arrays.keys() - wanted.keys()):
        raise BadRequest(f"the model has no input `{unknown[0]}`", allowed=", ".join(wanted))
    free: dict[int, tuple[int, str]] = {}
    for name, tensors in wanted.items():
        array = arrays[name]
        fits = array.ndim == len(tensors.shape) and all(
            size is None or size == got for size, got in zip(tensors.shape[1:], array.shape[1:], strict=True)
        )
        if array.dtype.name != tensors.dtype or not fits or not array.size:
            sizes = ["-1" if size is None else str(size) for size in (None, *tensors.shape[1:])]
            raise BadRequest(
                f"the input `{name}` does not fit",
                got=f"{array.dtype.name} [{','.join(map(str, array.shape))}]",
                allowed=f"{tensors.dtype} [{','.join(sizes)}]",
            )
        # Sizes that are free go together: as many rows, and as many tokens, in every input.
        for axis in [0, *(axis for axis, size in enumerate(tensors.shape) if axis and size is None)]:
            first, other = free.setdefault(axis, (array.shape[axis], name))
            if array.shape[axis] != first:
                raise BadRequest(
                    f"the inputs `{other}` and `{name}` differ in size", got=f"{first}, {array.shape[axis]}"
                )
    return {name: arrays[name] for name in wanted}


def _free(row: Row, wanted: Mapping[str, Tensors]) -> dict[str, list[int]]:
    """Of every input that has any: its sizes along the axes that may be of any size."""
    found = {
        name: [got for size, got in zip(tensors.shape[1:], row[name].shape, strict=True) if size is None]
        for name, tensors in wanted.items()
    }
    return {name: sizes for name, sizes in found.items() if sizes}


def _padded(array: NDArray[np.generic]) -> bool:
    return array.dtype.kind in "iub"
