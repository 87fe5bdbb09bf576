"""Samples side by side in fewer rows, none of which sees another.

Shapes: B rows, T positions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from limbeck.core.types import IGNORE, Batch
from limbeck.data.packing import pack
from limbeck.tasks._base import Feature
from limbeck.tasks._structure import additive


def packed(features: Sequence[Feature], capacity: int, pad_id: int) -> Batch:
    """A batch of several samples a row; `Batch.packed` says where each lies, in the order of the ids.

    Positions count anew in each sample, and attention is causal within it: `mask[b, 0, i, j]` is 0 where i and j are
    of one sample and j <= i, and minus infinity elsewhere. So every sample is read as if it were alone.

    Args:
        features: of a language model, with `input_ids` and `labels`.
        capacity: the most positions of a row.
        pad_id: fills up rows.
    """
    lengths = [feature.length for feature in features]
    places = pack(lengths, capacity)
    ends = [int(start) + length for start, length in zip(places.start, lengths, strict=True)]
    shape = (places.rows, max(ends))
    ids_BT, labels_BT = torch.full(shape, pad_id), torch.full(shape, IGNORE)
    positions_BT, owner_BT = torch.zeros(shape, dtype=torch.long), torch.full(shape, -1)
    spans = tuple(zip(places.row.tolist(), places.start.tolist(), ends, strict=True))
    for i, (feature, (row, start, end)) in enumerate(zip(features, spans, strict=True)):
        ids_BT[row, start:end] = torch.tensor(feature.values["input_ids"])
        labels_BT[row, start:end] = torch.tensor(feature.values["labels"])
        positions_BT[row, start:end] = torch.arange(end - start)
        owner_BT[row, start:end] = i
    inputs = {
        "input_ids": ids_BT,
        "attention_mask": additive(apart(owner_BT)),
        "position_ids": positions_BT,
    }
    return Batch(tuple(f.id for f in features), inputs, labels_BT, packed=spans)


def apart(owner_BT: torch.Tensor) -> torch.Tensor:
    """Which keys each query sees, [B, 1, T, T]: those of its own sample up to itself.

    Padding is seen by nobody, and sees the row's first token: no row may be empty, and the diagonal tells it from text.

    Args:
        owner_BT: number of the sample at each position, -1 for padding.
    """
    width = owner_BT.shape[1]
    causal_TT = torch.ones(width, width, dtype=torch.bool, device=owner_BT.device).tril()
    real_BT = owner_BT >= 0
    seen_BTT = (owner_BT[:, :, None] == owner_BT[:, None, :]) & causal_TT & real_BT[:, None, :]
    seen_BTT[:, :, 0] |= ~real_BT
    return seen_BTT[:, None]
