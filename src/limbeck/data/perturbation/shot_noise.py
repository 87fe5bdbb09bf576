"""Noise of little light."""

from __future__ import annotations

import numpy as np

from limbeck.core.parts import part
from limbeck.data.perturbation._images import PicturePerturbation, Pixels

_COUNTS = (60, 25, 12, 5, 3)


@part
class ShotNoise(PicturePerturbation):
    """Count light: a pixel p becomes Poisson(k p) / k, with k = 60, 25, 12, 5 or 3 counts for white.

    Reference:
        Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and Perturbations, 2019,
        arXiv:1903.12261.
    """

    def pixels(self, pixels_HWC: Pixels, draws: np.random.Generator) -> Pixels:
        counts = _COUNTS[self.severity - 1]
        return draws.poisson(pixels_HWC * counts).astype(np.float32) / counts
