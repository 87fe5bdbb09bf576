"""Chinese characters that sound alike, in degrees."""

from __future__ import annotations

import numpy as np

from limbeck.core.parts import part
from limbeck.core.types import Sample
from limbeck.data.augmentation.homophone import Homophone
from limbeck.data.perturbation._base import Graded, Refused, question_of, rewritten
from limbeck.data.perturbation._parts import HAN, around_held


@part
class Homophones(Graded):
    """Write other Chinese characters with the same reading, 4 % for each degree of severity; numerals stay.

    Reference:
        Zhang et al., Spelling Error Correction with Soft-Masked BERT, 2020, arXiv:2005.07421 (homophones as noise).
    """

    same_tone: bool = True
    """Whether the tone must be the same too."""

    def change(self, sample: Sample, draws: np.random.Generator) -> Sample | Refused:
        if not HAN.search(question_of(sample) or ""):
            return Refused("no_chinese")  # before it is asked for what reads Chinese
        slips = Homophone(rate=0.04 * self.severity, same_tone=self.same_tone)
        return rewritten(sample, lambda text: around_held(text, lambda stretch: slips.text(stretch, draws)))
