"""Mixup."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from limbeck.core.parts import part
from limbeck.data.augmentation._base import BlendAugmentation, Blending


@part
class Mixup(BlendAugmentation):
    """Lay two pictures over each other; the labels get the same shares.

    x = (1 - s) x_i + s x_j with s drawn from Beta(alpha, alpha) for every picture, and so the cross-entropy with
    labels (1 - s) CE(y_i) + s CE(y_j).

    Reference:
        Zhang et al., mixup: Beyond Empirical Risk Minimization, 2017, arXiv:1710.09412.
    """

    alpha: float = Field(default=0.4, gt=0)
    """Small: mostly one of the two; 1: all shares alike; large: mostly halves."""

    def blending(self, height: int, width: int, draws: np.random.Generator) -> Blending:
        return Blending(float(draws.beta(self.alpha, self.alpha)))
