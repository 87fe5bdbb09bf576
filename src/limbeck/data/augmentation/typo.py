"""Slips of the finger."""

from __future__ import annotations

from functools import cache

import numpy as np
from pydantic import Field

from limbeck.core.parts import part
from limbeck.data.augmentation._base import TextAugmentation

_ROWS = {"qwertyuiop": 0.0, "asdfghjkl": 0.25, "zxcvbnm": 0.75}
"""The rows of letters of an English keyboard, and how far each begins to the right of the first, in keys."""


@part
class Typo(TextAugmentation):
    """Mistype English letters: a neighbouring key, a letter left out or doubled, or two that change places.

    The four are equally likely; a letter that no other follows cannot change places and stays. So do all other
    characters, and the case of a letter.

    Reference:
        Belinkov and Bisk, Synthetic and Natural Noise Both Break Neural Machine Translation, 2017, arXiv:1711.02173.
    """

    rate: float = Field(default=0.03, gt=0, le=1)
    """Share of the letters that are mistyped."""

    def text(self, text: str, draws: np.random.Generator) -> str:
        slips, near = draws.random(len(text)) < self.rate, _neighbours()
        typed, place = "", 0
        while place < len(text):
            letter, after = text[place], text[place + 1 : place + 2]
            slip = draws.choice(["beside", "twice", "out", "swap"]) if slips[place] and letter.lower() in near else ""
            place += 1
            if slip == "beside":
                hit = draws.choice(list(near[letter.lower()]))
                typed += hit.upper() if letter.isupper() else hit
            elif slip == "twice":
                typed += letter * 2
            elif slip == "swap" and after.lower() in near:
                typed += after + letter
                place += 1
            elif slip != "out":
                typed += letter
        return typed if typed.strip() else text


@cache
def _neighbours() -> dict[str, str]:
    """The letters whose keys touch a letter's own."""
    keys = {letter: (y, x + shift) for y, (row, shift) in enumerate(_ROWS.items()) for x, letter in enumerate(row)}
    return {
        one: "".join(two for two, (v, u) in keys.items() if two != one and abs(v - y) <= 1 and abs(u - x) <= 1)
        for one, (y, x) in keys.items()
    }
