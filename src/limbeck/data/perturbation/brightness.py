"""Pictures with too much light."""

from __future__ import annotations

import numpy as np

from limbeck.core.parts import part
from limbeck.data.perturbation._images import PicturePerturbation, Pixels


@part
class Brightness(PicturePerturbation):
    """Add 0.1, white being 1, for each degree of severity; what is brighter than white is white.

    Reference:
        Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and Perturbations, 2019,
        arXiv:1903.12261.
    """

    def pixels(self, pixels_HWC: Pixels, draws: np.random.Generator) -> Pixels:
        return pixels_HWC + np.float32(0.1 * self.severity)
