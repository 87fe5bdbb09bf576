"""Noise that every pixel has alike."""

from __future__ import annotations

import numpy as np

from limbeck.core.parts import part
from limbeck.data.perturbation._images import PicturePerturbation, Pixels

_DEVIATION = (0.08, 0.12, 0.18, 0.26, 0.38)


@part
class GaussianNoise(PicturePerturbation):
    """Add normal noise to every pixel and colour: of deviation 0.08, 0.12, 0.18, 0.26 or 0.38, white being 1.

    Reference:
        Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and Perturbations, 2019,
        arXiv:1903.12261.
    """

    def pixels(self, pixels_HWC: Pixels, draws: np.random.Generator) -> Pixels:
        return pixels_HWC + _DEVIATION[self.severity - 1] * draws.standard_normal(pixels_HWC.shape, dtype=np.float32)
