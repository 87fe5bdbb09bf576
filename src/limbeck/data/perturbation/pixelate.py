"""Pictures of few pixels."""

from __future__ import annotations

import numpy as np

from limbeck.core.parts import part
from limbeck.data.perturbation._images import PicturePerturbation, Pixels

_SHARES = (0.6, 0.5, 0.4, 0.3, 0.25)


@part
class Pixelate(PicturePerturbation):
    """Scale down to 0.6, 0.5, 0.4, 0.3 or 0.25 of each side, and up again without smoothing.

    Reference:
        Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and Perturbations, 2019,
        arXiv:1903.12261.
    """

    def pixels(self, pixels_HWC: Pixels, draws: np.random.Generator) -> Pixels:
        from PIL import Image

        (height, width), share = pixels_HWC.shape[:2], _SHARES[self.severity - 1]
        small = max(1, round(width * share)), max(1, round(height * share))
        layers = (Image.fromarray(np.ascontiguousarray(layer)) for layer in pixels_HWC.transpose(2, 0, 1))
        box, nearest = Image.Resampling.BOX, Image.Resampling.NEAREST
        coarse = [np.asarray(each.resize(small, box).resize((width, height), nearest)) for each in layers]
        return np.stack(coarse, axis=-1)
