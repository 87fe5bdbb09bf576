"""What a student learns from.

`distribution`: divergences between what two models say of a row; they share the pass in `chunked.py`.
`features`: differences between layers. `relational`: differences between how samples relate.

Shapes: N rows (valid positions), V vocabulary or classes, S what student and teacher share.
"""

from __future__ import annotations

from limbeck.objectives.base import Context, DistributionTerm, FeatureLoss, FeatureTerm, Layer, Objective, Pair
from limbeck.objectives.chunked import Chunk, distribution_loss

__all__ = [
    "Chunk",
    "Context",
    "DistributionTerm",
    "FeatureLoss",
    "FeatureTerm",
    "Layer",
    "Objective",
    "Pair",
    "distribution_loss",
]
