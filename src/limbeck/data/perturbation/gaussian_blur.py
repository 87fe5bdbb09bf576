"""Pictures out of focus."""

from __future__ import annotations

import numpy as np

from limbeck.core.parts import part
from limbeck.data.perturbation._images import PicturePerturbation, Pixels, spread


@part
class GaussianBlur(PicturePerturbation):
    """Blur by a normal kernel; it grows with the severity and with the picture.

    Reference:
        Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and Perturbations, 2019,
        arXiv:1903.12261.
    """

    def pixels(self, pixels_HWC: Pixels, draws: np.random.Generator) -> Pixels:
        from scipy.ndimage import gaussian_filter

        reach = spread(pixels_HWC, self.severity)
        return gaussian_filter(pixels_HWC, (reach, reach, 0), mode="nearest")
