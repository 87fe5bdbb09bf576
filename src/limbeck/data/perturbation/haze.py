"""Pictures in a haze."""

from __future__ import annotations

import numpy as np

from limbeck.core.parts import part
from limbeck.data.perturbation._images import PicturePerturbation, Pixels


@part
class Haze(PicturePerturbation):
    """Veil the picture, p (1 - h) + h: h varies slowly over it, and its mean is 0.15 for each degree of severity.

    The benchmark's fog, made in another way.

    Reference:
        Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and Perturbations, 2019,
        arXiv:1903.12261.
    """

    def pixels(self, pixels_HWC: Pixels, draws: np.random.Generator) -> Pixels:
        from PIL import Image

        height, width = pixels_HWC.shape[:2]
        coarse = Image.fromarray(draws.uniform(0.85, 1.15, (4, 4)).astype(np.float32))
        veil_HW = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))
        share_HWC = (0.15 * self.severity * veil_HW).clip(0, 1)[..., None]
        return pixels_HWC * (1 - share_HWC) + share_HWC
