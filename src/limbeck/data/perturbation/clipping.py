"""Sounds that were recorded too loud."""

from __future__ import annotations

import numpy as np

from limbeck.core.parts import part
from limbeck.data.perturbation._audio import SoundPerturbation, Wave


@part
class Clipping(SoundPerturbation):
    """Cut off what is loudest: 8 % of the points for each degree of severity, at the height of the rest."""

    def wave(self, wave_CT: Wave, draws: np.random.Generator) -> Wave:
        limit = np.quantile(np.abs(wave_CT), 1 - 0.08 * self.severity)
        return wave_CT.clip(-limit, limit)
