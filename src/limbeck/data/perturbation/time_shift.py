"""Sounds that begin earlier or later."""

from __future__ import annotations

import numpy as np

from limbeck.core.parts import part
from limbeck.data.perturbation._audio import SoundPerturbation, Wave


@part
class TimeShift(SoundPerturbation):
    """Move the sound by 4 % of its length for each degree of severity, to either side; silence fills the gap."""

    def wave(self, wave_CT: Wave, draws: np.random.Generator) -> Wave:
        later, count = draws.random() < 0.5, round(0.04 * self.severity * wave_CT.shape[1])
        silence = np.zeros_like(wave_CT[:, :count])
        parts = (silence, wave_CT[:, : wave_CT.shape[1] - count]) if later else (wave_CT[:, count:], silence)
        return np.concatenate(parts, axis=1)
