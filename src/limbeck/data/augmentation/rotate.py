"""Turned pictures."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from limbeck.core.parts import part
from limbeck.data.augmentation._base import PixelAugmentation


@part
class Rotate(PixelAugmentation):
    """Turn a picture about its centre by an angle between -degrees and degrees; corners turn black.

    Reference:
        Simard et al., Best Practices for Convolutional Neural Networks Applied to Visual Document Analysis, 2003,
        ICDAR.
    """

    degrees: float = Field(default=15.0, gt=0, le=180)
    """The largest angle, to either side."""

    def pixels(self, pixels_CHW: np.ndarray, draws: np.random.Generator) -> np.ndarray:
        from scipy.ndimage import rotate

        angle = draws.uniform(-self.degrees, self.degrees)
        return rotate(pixels_CHW, angle, axes=(1, 2), reshape=False, order=1, mode="constant", cval=0.0)
