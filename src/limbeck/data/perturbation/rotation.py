"""Pictures that hang askew."""

from __future__ import annotations

import numpy as np

from limbeck.core.parts import part
from limbeck.data.perturbation._images import PicturePerturbation, Pixels


@part
class Rotation(PicturePerturbation):
    """Turn by 6 degrees for each degree of severity, to the left or to the right; the edge is drawn out.

    Reference:
        Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and Perturbations, 2019,
        arXiv:1903.12261.
    """

    def pixels(self, pixels_HWC: Pixels, draws: np.random.Generator) -> Pixels:
        from scipy.ndimage import rotate

        angle = draws.choice((-6, 6)) * self.severity
        return rotate(pixels_HWC, angle, reshape=False, order=1, mode="nearest")
