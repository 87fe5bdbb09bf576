"""What perturbations of sounds have in common.

Shapes: C channels, T points in time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any

import numpy as np

from limbeck.core.parts import part
from limbeck.core.types import Sample
from limbeck.data.perturbation._base import Graded, Refused

Wave = np.ndarray[Any, Any]


@part
class SoundPerturbation(Graded, ABC):
    """A change of a sample's waveform, `inputs["audio"]`: an array of floats [T] or [C, T]."""

    @abstractmethod
    def wave(self, wave_CT: Wave, draws: np.random.Generator) -> Wave:
        """The changed waveform.

        Args:
            wave_CT: not silent; not to be changed in place.
            draws: random numbers.

        Returns:
            The same shape.
        """

    def change(self, sample: Sample, draws: np.random.Generator) -> Sample | Refused:
        given = sample.inputs.get("audio")
        if not (isinstance(given, np.ndarray) and given.ndim in (1, 2) and np.issubdtype(given.dtype, np.floating)):
            return Refused("no_audio")
        if not given.any():
            return Refused("silent")
        changed = self.wave(np.atleast_2d(given), draws).reshape(given.shape).astype(given.dtype)
        if np.array_equal(changed, given):
            return Refused("nothing_changed")
        return replace(sample, inputs={**sample.inputs, "audio": changed})
