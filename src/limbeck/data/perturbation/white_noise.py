"""Noise behind a sound."""

from __future__ import annotations

import numpy as np

from limbeck.core.parts import part
from limbeck.data.perturbation._audio import SoundPerturbation, Wave

_DECIBEL = (25, 20, 15, 10, 5)


@part
class WhiteNoise(SoundPerturbation):
    """Add white noise at 25, 20, 15, 10 or 5 dB: 10 log10 of the sound's mean square over the noise's."""

    def wave(self, wave_CT: Wave, draws: np.random.Generator) -> Wave:
        power = np.square(wave_CT, dtype=np.float64).mean() / 10 ** (_DECIBEL[self.severity - 1] / 10)
        return wave_CT + np.sqrt(power) * draws.standard_normal(wave_CT.shape)
