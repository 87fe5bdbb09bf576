"""CutMix."""

from __future__ import annotations

import math

import numpy as np
from pydantic import Field

from limbeck.core.parts import part
from limbeck.data.augmentation._base import BlendAugmentation, Blending


@part
class Cutmix(BlendAugmentation):
    """Put a box of another picture in; the labels get the shares of the pixels.

    With s drawn from Beta(alpha, alpha) the box has sides H sqrt(s) and W sqrt(s) and its centre anywhere. What
    lies outside of the picture is cut off, and the label's share is that of the pixels that are really replaced.

    Reference:
        Yun et al., CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features, 2019,
        arXiv:1905.04899.
    """

    alpha: float = Field(default=1.0, gt=0)
    """Small: a tiny box or nearly the whole picture; 1: all shares alike; large: mostly halves."""

    def blending(self, height: int, width: int, draws: np.random.Generator) -> Blending:
        side = math.sqrt(draws.beta(self.alpha, self.alpha))
        top, bottom = _stretch(height, side, draws)
        left, right = _stretch(width, side, draws)
        return Blending((bottom - top) * (right - left) / (height * width), (top, bottom, left, right))


def _stretch(length: int, share: float, draws: np.random.Generator) -> tuple[int, int]:
    """Begin and end of a stretch of a line, its centre anywhere on it, cut off at both ends."""
    centre, size = int(draws.integers(length)), round(length * share)
    begin = centre - size // 2
    return max(0, begin), min(length, begin + size)
