"""The arithmetic of oracles, written out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

EPS = 1e-5
"""What layer normalisation adds to the variance."""


def normalised(row: Tensor) -> Tensor:
    """Mean and variance taken out."""
    centred = row - row.sum() / len(row)
    return centred / torch.sqrt((centred * centred).sum() / len(row) + EPS)


def unit(row: Tensor) -> Tensor:
    """A vector of length 1."""
    return row / torch.sqrt((row * row).sum())


def softmax(scores: Sequence[Tensor]) -> Tensor:
    """exp / sum of exp."""
    powers = torch.exp(torch.stack(list(scores)))
    return powers / powers.sum()


def kl(p: Tensor, q: Tensor) -> Tensor:
    """KL(p || q)."""
    return (p * torch.log(p / q)).sum()


def project(module: Any, row: Tensor) -> Tensor:
    """A row through a linear map, a 1x1 convolution, or nothing."""
    weight = getattr(module, "weight", None)
    return row if weight is None else weight.double().reshape(len(weight), -1) @ row + module.bias.double()
