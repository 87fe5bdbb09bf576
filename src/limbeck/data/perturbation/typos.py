"""Slips of the finger, in degrees."""

from __future__ import annotations

import numpy as np

from limbeck.core.parts import part
from limbeck.core.types import Sample
from limbeck.data.augmentation.typo import Typo
from limbeck.data.perturbation._base import Graded, Refused, rewritten
from limbeck.data.perturbation._parts import around_held


@part
class Typos(Graded):
    """Mistype 2 % of the question's letters for each degree of severity; numbers and choices stay.

    Reference:
        Belinkov and Bisk, Synthetic and Natural Noise Both Break Neural Machine Translation, 2017, arXiv:1711.02173.
    """

    def change(self, sample: Sample, draws: np.random.Generator) -> Sample | Refused:
        slips = Typo(rate=0.02 * self.severity)
        return rewritten(sample, lambda text: around_held(text, lambda stretch: slips.text(stretch, draws)))
