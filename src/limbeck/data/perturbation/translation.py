"""Pictures off the middle."""

from __future__ import annotations

import numpy as np

from limbeck.core.parts import part
from limbeck.data.perturbation._images import PicturePerturbation, Pixels


@part
class Translation(PicturePerturbation):
    """Move by 4 % of the shorter side for each degree of severity, in a random direction; the edge is drawn out.

    Reference:
        Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and Perturbations, 2019,
        arXiv:1903.12261.
    """

    def pixels(self, pixels_HWC: Pixels, draws: np.random.Generator) -> Pixels:
        from scipy.ndimage import shift

        angle, length = draws.uniform(0, 2 * np.pi), 0.04 * self.severity * min(pixels_HWC.shape[:2])
        return shift(pixels_HWC, (np.sin(angle) * length, np.cos(angle) * length, 0), order=1, mode="nearest")
