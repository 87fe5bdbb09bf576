"""Sounds that are too low."""

from __future__ import annotations

import numpy as np

from limbeck.core.parts import part
from limbeck.data.perturbation._audio import SoundPerturbation, Wave


@part
class Gain(SoundPerturbation):
    """Play the sound lower, by 6 dB for each degree of severity."""

    def wave(self, wave_CT: Wave, draws: np.random.Generator) -> Wave:
        return wave_CT * 10 ** (-6 * self.severity / 20)
