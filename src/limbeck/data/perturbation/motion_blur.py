"""Pictures of what moves."""

from __future__ import annotations

import numpy as np

from limbeck.core.parts import part
from limbeck.data.perturbation._images import PicturePerturbation, Pixels, spread


@part
class MotionBlur(PicturePerturbation):
    """Blur along a line of random direction; it grows with the severity and with the picture.

    Reference:
        Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and Perturbations, 2019,
        arXiv:1903.12261.
    """

    def pixels(self, pixels_HWC: Pixels, draws: np.random.Generator) -> Pixels:
        from scipy.ndimage import convolve, shift

        angle, length = draws.uniform(0, np.pi), 3 * spread(pixels_HWC, self.severity)
        reach = int(np.ceil(length / 2))
        dot = np.zeros((2 * reach + 1, 2 * reach + 1), dtype=np.float32)
        dot[reach, reach] = 1
        places = np.linspace(-length / 2, length / 2, 4 * reach + 1)
        line = np.mean([shift(dot, (np.sin(angle) * at, np.cos(angle) * at), order=1) for at in places], axis=0)
        return convolve(pixels_HWC, line[..., None] / line.sum(), mode="nearest")
