"""The page's colours can be read, in light and in dark."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

CSS = files("limbeck.report").joinpath("page.css").read_text()
TEXT = ("ink", "muted", "accent", "better", "worse")
LINES = ("ink", "student", "teacher", "baseline", *(f"term-{i}" for i in range(1, 7)))


def palette(dark: bool) -> dict[str, str]:
    block = CSS.split("prefers-color-scheme: dark")[1] if dark else CSS.split("@media")[0]
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block.split("* {")[0]))


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("ground", ["ground", "raised", "band"])
def test_contrast(dark: bool, ground: str) -> None:
    colours = palette(dark)
    assert {role: c for role in TEXT if (c := contrast(colours[role], colours[ground])) < 4.5} == {}
    assert {role: c for role in LINES if (c := contrast(colours[role], colours[ground])) < 3} == {}


def test_both_palettes_have_the_same_roles() -> None:
    assert palette(dark=False).keys() == palette(dark=True).keys()
