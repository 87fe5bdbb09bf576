"""Where a model's heads look: how widely, and whether two models look at the same.

The entropy of a head at a query is that of its probabilities over the keys that the query sees, divided by the
logarithm of their number: 0 where it looks at one key, 1 where it looks at all alike. Padding is neither asked nor
looked at; a query that sees one key alone has no choice and does not count.

Two layers agree at a query by 1 - JS(p, q) / log 2 with p and q the means over their heads: 1 where they look at the
same keys, 0 where they share none. Unlike heads, means can be compared between models with other numbers of heads.

Shapes: B rows, A heads, T positions (queries, keys), S and U layers of student and teacher.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from limbeck.core.errors import ModelError
from limbeck.core.types import Batch, Needs
from limbeck.models.heads import signal

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ROUNDING = 0.03
"""How far a row of probabilities may be from 1 in half precision."""


@dataclass(frozen=True)
class Place:
    """Where a layer's attention maps are read.

    Attributes:
        layer: full name of the layer.
        tap: the attention module's output that holds the maps.
        heads: how many.
        positions: of the rows that it was found with.
        causal: whether a query sees no later key.
        window: how many keys a query sees to either side that it looks to, its own with them; None: all.
    """

    layer: str
    tap: str
    heads: int
    positions: int
    causal: bool
    window: int | None

    def seen(self, batch: Batch, positions: int) -> Tensor:
        """Which keys each query sees, [B, T, T].

        Args:
            batch: the rows.
            positions: T.
        """
        at_T = torch.arange(positions, device=batch.labels.device)
        behind_TT = at_T[:, None] - at_T[None, :]
        seen_TT = behind_TT >= 0 if self.causal else torch.ones_like(behind_TT, dtype=torch.bool)
        if self.window is not None:
            seen_TT = seen_TT & (behind_TT.abs() < self.window)
        return real_positions(batch, positions)[:, None, :] & seen_TT


@torch.no_grad()
def find_places(model: PreTrainedModel, layers: Sequence[str], batch: Batch) -> list[Place]:
    """Where layers give attention maps: in each the first module that hands out one of [B, A, T, T].

    Args:
        model: with eager attention, in evaluation mode.
        layers: full names.
        batch: a few rows to run.
    """
    found: dict[str, Place] = {}

    def reader(layer: str, path: str) -> Any:
        def read(module: Any, given: Any, output: Any) -> None:
            for index, value in enumerate(output if isinstance(output, tuple | list) else ()):
                if layer not in found and index and _is_map(value, batch):
                    found[layer] = _place(model, layer, f"{path}:output.{index}", module, value, batch)

        return read

    modules = [(layer, name, part) for name, part in model.named_modules() for layer in layers if _in(name, layer)]
    hooks = [part.register_forward_hook(reader(layer, name)) for layer, name, part in modules]
    try:
        signal(model, batch, Needs(dist=True))
    finally:
        for hook in hooks:
            hook.remove()
    return [found[layer] for layer in layers if layer in found]


def _in(name: str, layer: str) -> bool:
    return name == layer or name.startswith(f"{layer}.")


def _is_map(value: Any, batch: Batch) -> bool:
    if not isinstance(value, Tensor) or value.ndim != 4 or len(value) != len(batch.labels):
        return False
    real_BT = real_positions(batch, value.shape[-1])
    if value.shape[-2:] != 2 * real_BT.shape[1:] or not value.is_floating_point():
        return False
    sums_BAT = value.float().sum(-1).masked_fill(~real_BT[:, None], 1)  # what padding looks at may be undefined
    return bool(((sums_BAT - 1).abs() < ROUNDING).all())


def _place(model: PreTrainedModel, layer: str, tap: str, module: Any, maps_BATT: Tensor, batch: Batch) -> Place:
    # Some decoders do not say that they are causal. Who looks both ways puts more than nothing on what comes later.
    real_BT = real_positions(batch, maps_BATT.shape[-1])
    looks_ahead = maps_BATT.masked_fill(~real_BT[:, None, :, None], 0).triu(1).any()
    causal = bool(getattr(module, "is_causal", False)) or (real_BT.shape[1] > 1 and not looks_ahead)
    config = model.config.get_text_config()
    every = None if getattr(config, "layer_types", None) else getattr(config, "sliding_window", None)
    window = getattr(module, "sliding_window", every if causal else None)
    return Place(layer, tap, maps_BATT.shape[1], maps_BATT.shape[-1], causal, window)


def real_positions(batch: Batch, positions: int) -> Tensor:
    """Which positions are no padding, [B, T]; all where there is no mask."""
    real_BT = batch.real
    rows = len(batch.labels)
    return torch.ones(rows, positions, dtype=torch.bool, device=batch.labels.device) if real_BT is None else real_BT


def choosing(seen_BTT: Tensor, real_BT: Tensor) -> Tensor:
    """The queries that count: real ones that see two keys or more, [B, T]."""
    return real_BT & (seen_BTT.sum(-1) > 1)


def over_seen(maps_BATT: Tensor, seen_BTT: Tensor, real_BT: Tensor, layer: str) -> Tensor:
    """Maps without what only rounding has put on unseen keys, in at least float32; rows of real queries sum to 1.

    Raises:
        ModelError: real queries look at keys that they should not see.
    """
    maps_BATT = maps_BATT.to(torch.float64 if maps_BATT.dtype == torch.float64 else torch.float32)
    kept_BATT = maps_BATT.masked_fill(~(seen_BTT & real_BT[:, :, None])[:, None], 0)
    sums_BAT = kept_BATT.sum(-1)
    lost_BAT = (1 - sums_BAT).masked_fill(~real_BT[:, None], 0)
    if bool((lost_BAT.abs() > ROUNDING).any()):
        raise ModelError(
            f"{layer} looks at keys that neither its mask nor its order lets it see",
            got=f"up to {float(lost_BAT.abs().max()):.0%} of a query's probability",
        )
    return kept_BATT / sums_BAT.clamp(min=torch.finfo(sums_BAT.dtype).tiny)[..., None]


def entropies(maps_BATT: Tensor, seen_BTT: Tensor, counted_BT: Tensor) -> Tensor:
    """Mean entropy of each head over the log of what its queries see, [B, A]; NaN for a row where none counts.

    Args:
        maps_BATT: probabilities, see `over_seen`.
        seen_BTT: which keys each query sees.
        counted_BT: the queries that count, see `choosing`.
    """
    most_BT = seen_BTT.sum(-1).clamp(min=2).to(maps_BATT.dtype).log()
    shares_BAT = -torch.xlogy(maps_BATT, maps_BATT).sum(-1) / most_BT[:, None]
    return (shares_BAT * counted_BT[:, None]).sum(-1) / counted_BT.sum(-1)[:, None]


def agreement(student: Sequence[Tensor], teacher: Sequence[Tensor], counted_BT: Tensor) -> Tensor:
    """How far each layer of a student looks where each of the teacher's does, [B, S, U]; NaN where no query counts.

    Args:
        student: by layer, the mean over its heads [B, T, T].
        teacher: the same of the teacher, over the same tokens.
        counted_BT: the queries that count.

    Reference:
        Lin, Divergence Measures Based on the Shannon Entropy, 1991, doi:10.1109/18.61115.
    """

    def entropy(p_BTT: Tensor) -> Tensor:
        return -torch.xlogy(p_BTT, p_BTT).sum(-1)

    mine, theirs = [entropy(p) for p in student], [entropy(q) for q in teacher]
    rows = []
    for p_BTT, h_BT in zip(student, mine, strict=True):
        apart = [entropy((p_BTT + q) / 2) - (h_BT + k_BT) / 2 for q, k_BT in zip(teacher, theirs, strict=True)]
        same_BUT = 1 - torch.stack(apart, 1) / math.log(2)
        rows.append((same_BUT * counted_BT[:, None]).sum(-1) / counted_BT.sum(-1)[:, None])
    return torch.stack(rows, 1)
