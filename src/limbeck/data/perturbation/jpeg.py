"""Pictures saved too small."""

from __future__ import annotations

import io

import numpy as np

from limbeck.core.parts import part
from limbeck.data.perturbation._images import PicturePerturbation, Pixels

_QUALITY = (25, 18, 15, 10, 7)


@part
class Jpeg(PicturePerturbation):
    """Save as JPEG of quality 25, 18, 15, 10 or 7, and read that.

    Reference:
        Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and Perturbations, 2019,
        arXiv:1903.12261.
    """

    def pixels(self, pixels_HWC: Pixels, draws: np.random.Generator) -> Pixels:
        from PIL import Image

        levels = (pixels_HWC * 255).round().astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(levels.squeeze(-1) if levels.shape[2] == 1 else levels).save(
            file, "JPEG", quality=_QUALITY[self.severity - 1]
        )
        read = np.asarray(Image.open(file), dtype=np.float32) / 255
        return read.reshape(pixels_HWC.shape)
