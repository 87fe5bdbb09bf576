"""Left-out tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from limbeck.core.parts import part
from limbeck.data.augmentation._base import TokenAugmentation


@part
class TokenDeletion(TokenAugmentation):
    """Leave out tokens at random; one of each text always stays.

    Reference:
        Wei and Zou, EDA: Easy Data Augmentation Techniques for Boosting Performance on Text Classification Tasks,
        2019, arXiv:1901.11196.
    """

    rate: float = Field(default=0.1, gt=0, lt=1)
    """Share of the tokens that are left out."""

    def tokens(self, places: Sequence[int], draws: np.random.Generator) -> list[int]:
        gone = draws.random(len(places)) < self.rate
        if gone.all():
            gone[draws.integers(len(places))] = False
        return [place for place, out in zip(places, gone, strict=True) if not out]
