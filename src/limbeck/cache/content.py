"""How a sample is known again: by its id, what a model reads of it, and which of its positions have a label.

Shapes: B batch, T positions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from limbeck.core.types import IGNORE, Batch

DERIVED = frozenset({"attention_mask", "position_ids"})
"""Inputs that follow from where a sample lies in a batch."""


@dataclass(frozen=True)
class Place:
    """One sample in a batch.

    Attributes:
        id: hash of its id.
        inputs: hash of what is read of it, without padding.
        labels: hash of the positions that have a label, counted from its first.
        row: its row.
        real: its positions in the row [n]; None where the batch has no positions (pictures).
        rows: how many distributions it has.
    """

    id: int
    inputs: int
    labels: int
    row: int
    real: Tensor | None
    rows: int

    @property
    def key(self) -> tuple[int, int]:
        """What it is looked up by."""
        both = self.inputs.to_bytes(8, "little") + self.labels.to_bytes(8, "little")
        return self.id, hash_of(both)


def hash_of(data: bytes) -> int:
    """64 bits."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def places(batch: Batch) -> list[Place]:
    """Every sample of a batch, in its order; packed, padded on either side or alone, a sample is the same."""
    mask = batch.real
    mask = None if mask is None else mask.cpu()
    labels = batch.labels.cpu()
    inputs = {name: value.cpu() for name, value in sorted(batch.inputs.items()) if name not in DERIVED}
    spans: Sequence[tuple[int, int | None, int | None]]
    spans = batch.packed or [(row, None, None) for row in range(len(batch.ids))]
    found = []
    for sample, (row, start, end) in zip(batch.ids, spans, strict=True):
        real = None if mask is None else mask[row].nonzero().squeeze(1)
        if start is not None and end is not None:
            real = torch.arange(start, end)
        digest = hashlib.blake2b(digest_size=8)
        for name, value in inputs.items():
            part = value[row] if real is None else value[row].index_select(0, real)
            array = np.ascontiguousarray(part.numpy())
            digest.update(f"{name} {array.dtype.str} {array.shape};".encode())
            digest.update(array.tobytes())
        if labels.ndim == 1:
            where, rows = b"class", 1
        else:
            valid = labels[row] != IGNORE if real is None else labels[row].index_select(0, real) != IGNORE
            at = valid.nonzero().squeeze(1)
            where, rows = at.numpy().astype("<i8").tobytes(), len(at)
        read = int.from_bytes(digest.digest(), "little")
        found.append(Place(hash_of(sample.encode()), read, hash_of(where), row, real, rows))
    return found


def row_places(batch: Batch, found: Sequence[Place]) -> Tensor:
    """Flat places, in `batch.labels`, of all labelled positions, sample by sample."""
    if batch.labels.ndim == 1:
        return torch.tensor([each.row for each in found])
    width, labels = batch.labels.shape[1], batch.labels.cpu()
    parts = []
    for each in found:
        real = torch.arange(width) if each.real is None else each.real
        valid = labels[each.row].index_select(0, real) != IGNORE
        parts.append(each.row * width + real[valid])
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.long)
