"""Handwritten digits that come with scikit-learn: real images without a download."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from limbeck.core.artifacts import digest_of
from limbeck.core.errors import DataError
from limbeck.core.parts import config_of, part
from limbeck.core.types import Rows
from limbeck.data.sources._base import Source

_SPLITS = ("train", "test")


@part
class Digits(Source):
    """1797 handwritten digits, 8 x 8 grey pixels, parted into train and test the same way each time.

    Reference:
        Alpaydin & Kaynak, Optical Recognition of Handwritten Digits, UCI 1998, CC BY 4.0.
    """

    test_size: Annotated[float, Field(gt=0, lt=1)] = 0.25

    def has(self, split: str) -> bool:
        return split in _SPLITS

    def load(self, split: str) -> Rows:
        import numpy as np
        from sklearn.datasets import load_digits

        from limbeck.data.draw import hold_out

        if split not in _SPLITS:
            fix = "leave data.validation out: a tenth of the training rows is held out"
            raise DataError(f"digits has no split '{split}'", allowed=", ".join(_SPLITS), fix=fix)
        images, labels = load_digits(return_X_y=True)
        pixels = np.rint(images.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
        drawn = hold_out(len(labels), self.test_size, groups=[int(label) for label in labels], seed=0)
        positions = drawn.held if split == "test" else drawn.kept
        rows = [{"image": pixels[i], "label": int(labels[i])} for i in positions]
        return Rows(rows, origin=f"digits ({split})", label_names=tuple("0123456789"))

    def fingerprint(self) -> str:
        # Raise the number when the rows or their parting change.
        return digest_of({"digits": 1, **config_of(self)})
