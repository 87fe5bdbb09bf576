"""Pictures with little contrast."""

from __future__ import annotations

import numpy as np

from limbeck.core.parts import part
from limbeck.data.perturbation._images import PicturePerturbation, Pixels

_STAYS = (0.75, 0.5, 0.4, 0.3, 0.15)


@part
class Contrast(PicturePerturbation):
    """Bring every pixel nearer to the picture's mean: 0.75, 0.5, 0.4, 0.3 or 0.15 of the way stays.

    Reference:
        Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and Perturbations, 2019,
        arXiv:1903.12261.
    """

    def pixels(self, pixels_HWC: Pixels, draws: np.random.Generator) -> Pixels:
        middle = pixels_HWC.mean((0, 1))
        return middle + np.float32(_STAYS[self.severity - 1]) * (pixels_HWC - middle)
