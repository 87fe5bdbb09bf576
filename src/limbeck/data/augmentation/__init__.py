"""Augmentation: samples changed at random, the same way for teacher and student; one part a file."""

from __future__ import annotations

from limbeck.data.augmentation._base import (
    SCHEME,
    Augmentation,
    BlendAugmentation,
    Blending,
    DrawKey,
    Matter,
    PixelAugmentation,
    TextAugmentation,
    TokenAugmentation,
    partners,
    refuse_disorder,
)

__all__ = [
    "SCHEME",
    "Augmentation",
    "BlendAugmentation",
    "Blending",
    "DrawKey",
    "Matter",
    "PixelAugmentation",
    "TextAugmentation",
    "TokenAugmentation",
    "partners",
    "refuse_disorder",
]
