"""Changed colours."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from pydantic import Field

from limbeck.core.errors import RecipeError
from limbeck.core.parts import part
from limbeck.data.augmentation._base import PixelAugmentation

_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
"""What red, green and blue add to brightness (ITU-R BT.601)."""


@part
class ColorJitter(PixelAugmentation):
    """Change brightness, contrast, saturation and hue, one after the other in random order.

    With f drawn from [1 - x, 1 + x]: brightness f p; contrast f p + (1 - f) m, m the mean of the grey picture;
    saturation f p + (1 - f) g, g the grey picture. Hue turns colours about the grey axis. The result is cut to 0..1.

    Reference:
        Howard, Some Improvements on Deep Convolutional Neural Network Based Image Classification, 2013,
        arXiv:1312.5402.
    """

    brightness: float = Field(default=0.2, ge=0, le=1)
    """How far it changes, as a share."""
    contrast: float = Field(default=0.2, ge=0, le=1)
    """How far it changes, as a share."""
    saturation: float = Field(default=0.0, ge=0, le=1)
    """How far it changes, as a share. Colour pictures only."""
    hue: float = Field(default=0.0, ge=0, le=0.5)
    """How far colours turn to either side, as a share of a full turn. Colour pictures only."""

    def pixels(self, pixels_CHW: np.ndarray, draws: np.random.Generator) -> np.ndarray:
        if len(pixels_CHW) != 3 and (self.saturation or self.hue):
            what, fix = "a grey picture has neither saturation nor hue", "set both to 0"
            raise RecipeError(what, got=f"saturation {self.saturation}, hue {self.hue}", fix=fix)
        # All four are drawn, used or not: one that is switched off does not change the draws of the others.
        light, contrast, colour = (
            np.float32(draws.uniform(1 - x, 1 + x)) for x in (self.brightness, self.contrast, self.saturation)
        )
        angle = draws.uniform(-self.hue, self.hue) * 2 * math.pi
        changes: list[tuple[float, Callable[[np.ndarray], np.ndarray]]] = [
            (self.brightness, lambda p: light * p),
            (self.contrast, lambda p: contrast * p + (1 - contrast) * _grey(p).mean()),
            (self.saturation, lambda p: colour * p + (1 - colour) * _grey(p)),
            (self.hue, lambda p: np.tensordot(_turn(angle), p, 1)),
        ]
        for index in draws.permutation(4):
            asked, change = changes[index]
            if asked:
                pixels_CHW = change(pixels_CHW).clip(0, 1)
        return pixels_CHW


def _grey(pixels_CHW: np.ndarray) -> np.ndarray:
    """The picture without colours, [1, H, W]."""
    return pixels_CHW if len(pixels_CHW) != 3 else np.tensordot(_LUMA, pixels_CHW, 1)[None]


def _turn(angle: float) -> np.ndarray:
    """The matrix that turns (red, green, blue) about (1, 1, 1) by an angle (Rodrigues' formula), [3, 3]."""
    cos, sin = math.cos(angle), math.sin(angle) / math.sqrt(3)
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]])
    return (cos * np.eye(3) + sin * cross + (1 - cos) / 3).astype(np.float32)
