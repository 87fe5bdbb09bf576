"""Mirrored pictures."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from limbeck.core.parts import part
from limbeck.data.augmentation._base import PixelAugmentation


@part
class Flip(PixelAugmentation):
    """Mirror a picture. Not for digits or letters: a mirrored one is another one, or none.

    Reference:
        Krizhevsky et al., ImageNet Classification with Deep Convolutional Neural Networks, 2012, NeurIPS.
    """

    probability: float = Field(default=0.5, ge=0, le=1)
    """Share of the samples that are mirrored."""
    direction: Literal["horizontal", "vertical"] = "horizontal"
    """Left to right, or top to bottom."""

    def pixels(self, pixels_CHW: np.ndarray, draws: np.random.Generator) -> np.ndarray:
        return np.flip(pixels_CHW, axis=2 if self.direction == "horizontal" else 1)
