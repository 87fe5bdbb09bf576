"""Swapped tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from limbeck.core.parts import part
from limbeck.data.augmentation._base import TokenAugmentation


@part
class TokenSwap(TokenAugmentation):
    """Let tokens of a text change places, two at a time.

    Reference:
        Wei and Zou, EDA: Easy Data Augmentation Techniques for Boosting Performance on Text Classification Tasks,
        2019, arXiv:1901.11196.
    """

    rate: float = Field(default=0.1, gt=0, le=1)
    """Share of the tokens that are moved, by pairs; in a text of two tokens or more at least one pair is."""

    def tokens(self, places: Sequence[int], draws: np.random.Generator) -> list[int]:
        order = list(places)
        if len(order) < 2:
            return order
        for _ in range(max(1, round(self.rate * len(order) / 2))):
            one, other = draws.choice(len(order), size=2, replace=False)
            order[one], order[other] = order[other], order[one]
        return order
