"""Random crops."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from limbeck.core.errors import RecipeError
from limbeck.core.parts import part
from limbeck.data.augmentation._base import PixelAugmentation


@part
class Crop(PixelAugmentation):
    """Widen a picture on all sides and cut its own size out at a random place.

    Reference:
        He et al., Deep Residual Learning for Image Recognition, 2015, arXiv:1512.03385 (section 4.2).
    """

    padding: int = Field(default=4, gt=0)
    """Pixels added on each side."""
    fill: Literal["black", "reflect"] = "black"
    """What they are: black, or the picture mirrored at its edge."""

    def pixels(self, pixels_CHW: np.ndarray, draws: np.random.Generator) -> np.ndarray:
        colours, height, width = pixels_CHW.shape
        if self.fill == "reflect" and self.padding >= min(height, width):
            what = "a picture cannot be mirrored further than its own size"
            raise RecipeError(what, got=f"padding {self.padding}, a picture of {width} x {height}")
        side = self.padding
        if self.fill == "reflect":
            wide = np.pad(pixels_CHW, ((0, 0), (side, side), (side, side)), mode="reflect")
        else:
            wide = np.zeros((colours, height + 2 * side, width + 2 * side), dtype=pixels_CHW.dtype)
            wide[:, side:-side, side:-side] = pixels_CHW
        top, left = draws.integers(0, 2 * self.padding + 1, size=2)
        return wide[:, top : top + height, left : left + width]
