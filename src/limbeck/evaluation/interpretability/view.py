"""A model that is looked into: what its layers hold, and where its heads look, on a few rows at a time.

Shapes: B rows, A heads, T positions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from limbeck.core.errors import ModelError
from limbeck.core.types import Batch, Needs, Sample
from limbeck.evaluation.interpretability.attention import (
    Place,
    choosing,
    entropies,
    find_places,
    over_seen,
    real_positions,
)
from limbeck.evaluation.interpretability.pooling import pooled
from limbeck.models.heads import signal
from limbeck.models.taps import Taps
from limbeck.tasks import Codec
from limbeck.tasks.causal_lm import CausalCodec

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PROBE = 2
"""Rows with which attention maps are looked for."""


def layer_names(model: nn.Module) -> list[str]:
    """Full names of a model's layers, or stages: of all lists of modules, the one that holds the most.

    Raises:
        ModelError: it has none.
    """
    lists = [(name, part) for name, part in model.named_modules() if isinstance(part, nn.ModuleList) and len(part)]
    if not lists:
        raise ModelError(f"{type(model).__name__} has no list of layers")
    path, layers = max(lists, key=lambda each: sum(p.numel() for p in each[1].parameters()))
    return [f"{path}.{i}" for i in range(len(layers))]


@contextmanager
def examined(model: PreTrainedModel) -> Iterator[None]:
    """A model in evaluation mode and, where it can, with eager attention, which alone gives maps; then as before."""
    training = [part for part in model.modules() if part.training]
    kind = model.config._attn_implementation
    switched = kind != "eager" and model._can_set_attn_implementation()
    model.eval()
    if switched:
        model.set_attn_implementation("eager")
    try:
        yield
    finally:
        if switched:
            model.set_attn_implementation(kind)
        for part in training:
            part.training = True


@dataclass(frozen=True)
class Look:
    """What is seen in a model on some rows.

    Attributes:
        pooled: by layer, see `pooled`.
        entropies: by layer with maps, of its heads [B, A].
        maps: by layer with maps, the mean over heads [B, T, T].
        counted_BT: the queries that count in all of these; None where there are no maps.
    """

    pooled: list[Tensor]
    entropies: list[Tensor]
    maps: list[Tensor]
    counted_BT: Tensor | None


class View:
    """A model, and rows in its own numbers.

    Args:
        name: how scores call it.
        model: see `examined`, in which all of this is to be done.
        codec: of its samples.
        samples: the rows.

    Attributes:
        features: the rows in numbers, by id.
        layers: full names, in their order.
        places: where attention maps are read; empty where there are none.

    Raises:
        ModelError: it has no layers that could be told.
    """

    def __init__(self, name: str, model: PreTrainedModel, codec: Codec, samples: Sequence[Sample]):
        if isinstance(codec, CausalCodec) and codec.task.packing:
            codec = replace(codec.task, packing=False).codec(codec.processor, None)
        self.name, self.model, self.codec = name, model, codec
        self.features = {feature.id: feature for feature in codec.encode(samples).features}
        self.layers = layer_names(model)
        self.places: list[Place] = []

    @property
    def called(self) -> str:
        """Its name and its class."""
        return f"{self.name} ({type(self.model).__name__})"

    def find_maps(self) -> None:
        """Look for attention maps."""
        if not self.features:
            return
        few = sorted(self.features, key=lambda i: self.features[i].length)[:PROBE]
        self.places = find_places(self.model, self.layers, self.batch(few))

    def batch(self, ids: Sequence[str]) -> Batch:
        """Rows as the model takes them."""
        return self.codec.collate([self.features[i] for i in ids]).to(next(self.model.parameters()).device)

    @torch.no_grad()
    def look(self, ids: Sequence[str]) -> Look:
        """Run the model on some rows; of each layer only what is named in `Look` is kept.

        Raises:
            ModelError: a layer is run more than once, or looks where it should not.
        """
        batch = self.batch(ids)
        places = {place.tap: place for place in self.places}
        spread: dict[str, Tensor] = {}
        counted: dict[str, Tensor] = {}

        def keep(path: str, held: Tensor) -> Tensor:
            if path not in places:
                return pooled(held, batch.real)
            seen_BTT, real_BT = places[path].seen(batch, held.shape[-1]), real_positions(batch, held.shape[-1])
            counted[path] = choosing(seen_BTT, real_BT)
            maps_BATT = over_seen(held, seen_BTT, real_BT, places[path].layer)
            spread[path] = entropies(maps_BATT, seen_BTT, counted[path]).cpu()
            return maps_BATT.mean(1)

        with Taps(self.model, [*self.layers, *places], keep) as taps:
            signal(self.model, batch, Needs(dist=True))
        found = taps.features()
        return Look(
            [found[path] for path in self.layers],
            [spread[path] for path in places],
            [found[path] for path in places],
            torch.stack(list(counted.values())).all(0) if counted else None,
        )


def same_tokens(one: View, other: View, ids: Sequence[str]) -> bool:
    """Whether two models read rows as the same tokens, with the same labels; pictures have no tokens to differ in."""
    for i in ids:
        mine, theirs = one.batch([i]), other.batch([i])
        left, right = mine.inputs.get("input_ids"), theirs.inputs.get("input_ids")
        if (left is None) != (right is None):
            return False
        if (
            left is not None
            and right is not None
            and not (torch.equal(left, right) and torch.equal(mine.labels, theirs.labels))
        ):
            return False
    return True
