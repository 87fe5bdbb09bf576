"""What perturbations of pictures have in common.

Shapes: H height, W width, C colours.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any

import numpy as np

from limbeck.core.parts import part
from limbeck.core.types import Sample
from limbeck.data.perturbation._base import Graded, Refused

Pixels = np.ndarray[Any, Any]


@part
class PicturePerturbation(Graded, ABC):
    """A change of a sample's picture, `inputs["image"]`, which stays as large and as colourful as it is."""

    @abstractmethod
    def pixels(self, pixels_HWC: Pixels, draws: np.random.Generator) -> Pixels:
        """The changed picture.

        Args:
            pixels_HWC: float32, 0 (black) to 1; not to be changed in place.
            draws: random numbers.

        Returns:
            The same shape; what lies beyond 0 and 1 is cut off.
        """

    def change(self, sample: Sample, draws: np.random.Generator) -> Sample | Refused:
        from PIL import Image

        picture = sample.inputs.get("image")
        if not isinstance(picture, Image.Image):
            return Refused("no_image")
        plain = np.asarray(picture.convert("L" if picture.mode in ("1", "L") else "RGB"))
        changed = self.pixels(plain.reshape(*plain.shape[:2], -1).astype(np.float32) / 255, draws)
        levels = (changed.clip(0, 1) * 255).round().astype(np.uint8).reshape(plain.shape)
        if np.array_equal(levels, plain):
            return Refused("nothing_changed")
        return replace(sample, inputs={**sample.inputs, "image": Image.fromarray(levels)})


def spread(pixels_HWC: Pixels, severity: int) -> float:
    """How many pixels a blur reaches: 1/4, and for each degree of severity 0.15 and 0.4 % of the shorter side.

    At 32 pixels that is 0.5 to 1.6, at 224 pixels 1.3 to 5.5, about the range of the benchmark by Hendrycks and
    Dietterich at either size.
    """
    return 0.25 + severity * (0.15 + 0.004 * min(pixels_HWC.shape[:2]))
