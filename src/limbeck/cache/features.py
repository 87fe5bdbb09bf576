"""Hidden states and the like as bytes: float16, or int8 with a scale for each row.

A feature is `dimensions (uint8) | sizes (uint32 each) | values`; int8 values come after a float32 scale for each row.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from limbeck.core.errors import RecipeError
from limbeck.core.types import Batch

ALONG = {1: (), 2: (0,), 3: (1, 2)}
"""By number of dimensions, those of a text's value that go with its positions: [D], [T, D], [heads, T, T]."""


def write(value: Tensor, dtype: str) -> bytes:
    """One sample's feature, of any shape.

    Raises:
        RecipeError: it holds values that the type cannot.
    """
    array = np.ascontiguousarray(value.float().cpu().numpy())
    head = bytes([array.ndim]) + np.array(array.shape, dtype="<u4").tobytes()
    if not np.isfinite(array).all() or (dtype == "float16" and np.abs(array).max(initial=0) > 65504):
        raise RecipeError("a layer holds values that float16 cannot", fix="cache.features=int8, or another layer")
    if dtype == "float16":
        return head + array.astype("<f2").tobytes()
    rows = array.reshape(-1, array.shape[-1])
    scales = np.abs(rows).max(axis=1, initial=0) / 127
    codes = np.rint(rows / np.where(scales == 0, 1, scales)[:, None]).astype(np.int8)
    return head + scales.astype("<f4").tobytes() + codes.tobytes()


def read(data: memoryview, count: int, dtype: str) -> list[Tensor]:
    """A sample's features, in the order in which they were written."""
    found, at = [], 0
    for _ in range(count):
        shape = tuple(np.frombuffer(data, "<u4", data[at], at + 1).tolist())
        at += 1 + 4 * len(shape)
        size = int(np.prod(shape))
        if dtype == "float16":
            values = np.frombuffer(data, "<f2", size, at).astype(np.float32)
            at += 2 * size
        else:
            rows = size // shape[-1]
            scales = np.frombuffer(data, "<f4", rows, at)
            codes = np.frombuffer(data, np.int8, size, at + 4 * rows).reshape(rows, -1)
            values = codes.astype(np.float32) * scales[:, None]
            at += 4 * rows + size
        found.append(torch.from_numpy(values.reshape(shape)))
    return found


def own(value: Tensor, real: Tensor | None) -> Tensor:
    """A sample's value without padding, and without its neighbours in the row.

    Args:
        value: the row's.
        real: the sample's positions; None where there are none.

    Raises:
        RecipeError: its shape is none that is known of texts.
    """
    if real is None:
        return value
    for dim in ALONG.get(value.ndim, (-1,)):
        if value.shape[dim] <= int(real[-1]):
            raise RecipeError("a layer of this shape cannot be recorded", got=tuple(value.shape))
        value = value.index_select(dim, real.to(value.device))
    return value


def together(values: Sequence[Tensor], places: Sequence[tuple[int, Tensor | None]], batch: Batch) -> Tensor:
    """Samples of their own lengths as one batch, each where it lies; zeros elsewhere.

    Args:
        values: of each sample.
        places: its row and its positions.
        batch: where they lie.
    """
    first, rows = values[0], batch.labels.shape[0]
    along = () if places[0][1] is None else ALONG[first.ndim]
    if not along and batch.packed is not None:
        raise RecipeError("a value of whole samples cannot be read where samples share rows", fix="task.packing=false")
    inputs = next(iter(batch.inputs.values()))
    sizes = [inputs.shape[1] if dim in along else size for dim, size in enumerate(first.shape)]
    made = first.new_zeros(rows, *sizes)
    for value, (row, real) in zip(values, places, strict=True):
        if not along or real is None:
            made[row] = value
        elif along == (0,):
            made[row, real] = value
        else:
            made[row, :, real[:, None], real] = value
    return made
