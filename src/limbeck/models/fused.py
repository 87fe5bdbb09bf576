"""Linear layers that read the same input, as one: the rows of their weights under each other, one product for all.

    [q; k; v] = [W_q; W_k; W_v] x + [b_q; b_k; b_v]

Every number is the same sum of the same products as before, so that a model says the same but for rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

SIBLINGS: dict[str, tuple[tuple[str, ...], ...]] = {
    "qkv": (
        ("q_proj", "k_proj", "v_proj"),
        ("query", "key", "value"),
        ("q_lin", "k_lin", "v_lin"),
        ("query_proj", "key_proj", "value_proj"),
    ),
    "gate_up": (("gate_proj", "up_proj"), ("w1", "w3")),
}
"""By what they are together: the names that such layers have beside each other in one module."""


def fuse(model: nn.Module, kind: str) -> int:
    """Put one product in the place of several, everywhere in a model, which is changed.

    The names of the layers stay, but their weights are in the first one's: save a model before.

    Args:
        model: in evaluation mode.
        kind: `qkv` or `gate_up`.

    Returns:
        How many groups became one layer each.
    """
    found = list(groups(model, kind))
    for parent, names in found:
        whole = _Whole([getattr(parent, name) for name in names])
        for place, name in enumerate(names):
            setattr(parent, name, _Part(whole, place))
    return len(found)


def groups(model: nn.Module, kind: str) -> Iterator[tuple[nn.Module, tuple[str, ...]]]:
    """Modules that have such layers, and the layers' names.

    Args:
        model: is looked through.
        kind: `qkv` or `gate_up`.
    """
    for parent in model.modules():
        for names in SIBLINGS[kind]:
            layers = [getattr(parent, name, None) for name in names]
            # A subclass (LoRA's, a quantized one's) does more than multiply.
            plain = [each for each in layers if type(each) is nn.Linear]
            if len(plain) == len(names) and len({(x.in_features, x.weight.dtype) for x in plain}) == 1:
                yield parent, names


class _Whole(nn.Linear):
    """The layers as one. What it made for an input waits until all parts of it have been asked for."""

    def __init__(self, layers: Sequence[nn.Linear]):
        weight, biased = layers[0].weight, any(layer.bias is not None for layer in layers)
        self.sizes = [layer.out_features for layer in layers]
        like = {"device": weight.device, "dtype": weight.dtype}
        super().__init__(weight.shape[1], sum(self.sizes), bias=biased, **like)
        with torch.no_grad():
            self.weight.copy_(torch.cat([layer.weight for layer in layers]))
            if biased:
                self.bias.copy_(torch.cat([_bias(layer) for layer in layers]))
        self.requires_grad_(False)
        self.read: Tensor | None = None
        self.made: tuple[Tensor, ...] = ()

    def part(self, x: Tensor, place: int) -> Tensor:
        if x is not self.read:  # the first part that is asked for; or one that reads something else, as across texts
            self.read, self.made = x, self(x).split(self.sizes, dim=-1)
        found = self.made[place]
        if place == len(self.sizes) - 1:
            self.read, self.made = None, ()
        return found


class _Part(nn.Module):
    """One of the layers, in the place that it had."""

    def __init__(self, whole: _Whole, place: int):
        super().__init__()
        self.whole, self.place = whole, place
        self.in_features, self.out_features = whole.in_features, whole.sizes[place]

    def forward(self, x: Tensor) -> Tensor:
        return self.whole.part(x, self.place)


def _bias(layer: nn.Linear) -> Tensor:
    return layer.weight.new_zeros(layer.out_features) if layer.bias is None else layer.bias
