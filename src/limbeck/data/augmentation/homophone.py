"""Chinese characters that sound alike."""

from __future__ import annotations

import re
from functools import cache

import numpy as np
from pydantic import Field

from limbeck.core.errors import MissingExtra
from limbeck.core.parts import part
from limbeck.data.augmentation._base import TextAugmentation

_HAN = re.compile(r"[\u4e00-\u9fff]+")


@part
class Homophone(TextAugmentation):
    """Write another Chinese character with the same reading, as a phonetic keyboard may.

    Only characters of everyday use are written: the 3,755 of the first level of GB 2312. Readings follow the words
    around a character. Other characters, and those without a homophone, stay as they are.

    Reference:
        Zhang et al., Spelling Error Correction with Soft-Masked BERT, 2020, arXiv:2005.07421 (homophones as noise).
    """

    rate: float = Field(default=0.1, gt=0, le=1)
    """Share of the Chinese characters that are replaced."""
    same_tone: bool = True
    """Whether the tone must be the same too. Phonetic keyboards do not ask for it, so `false` gives their errors."""

    def text(self, text: str, draws: np.random.Generator) -> str:
        common = _common(self.same_tone)  # also says at the first text, and not at the first hit, what is missing

        def rewritten(found: re.Match[str]) -> str:
            run, written = found.group(), ""
            hits = draws.random(len(run)) < self.rate
            readings = _readings(run, self.same_tone) if hits.any() else [""] * len(run)
            for character, reading, hit in zip(run, readings, hits, strict=True):
                alike = common.get(reading, "").replace(character, "") if hit else ""
                written += alike[draws.integers(len(alike))] if alike else character
            return written

        return _HAN.sub(rewritten, text)


def _readings(run: str, tones: bool) -> list[str]:
    """The reading of each character where it stands, `zhong1` or `zhong`; the character itself where there is none."""
    try:
        from pypinyin import Style, pinyin
    except ImportError as error:
        raise MissingExtra("the augmentation 'homophone'", "chinese") from error
    style = Style.TONE3 if tones else Style.NORMAL
    return [each[0] for each in pinyin(run, style=style)]


@cache
def _common(tones: bool) -> dict[str, str]:
    """Of every reading: the characters of everyday use that have it, in the standard's order."""
    spots = (bytes((0xA0 + row, 0xA0 + column)) for row in range(16, 56) for column in range(1, 95))
    characters = [spot.decode("gb2312", errors="ignore") for spot in spots]
    found: dict[str, str] = {}
    for character in filter(None, characters):
        (reading,) = _readings(character, tones)  # one by one: side by side they would be read as words
        found[reading] = found.get(reading, "") + character
    return found
