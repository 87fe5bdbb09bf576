"""Texts as sets of runs of words, and how alike two texts are.

A word is a run of letters and digits, a Chinese, Japanese or Korean character, or a sign; case does not count.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

import numpy as np
import xxhash

_CJK = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
_WORD = re.compile(rf"[{_CJK}]|[^\W{_CJK}]+")
_UNIT = re.compile(rf"[{_CJK}]|[^\W{_CJK}]+|([^\w\s])\1*")

SIZE = 128
"""Numbers in a signature; the error of the estimated likeness is 1 / sqrt(SIZE) at most."""


def words(text: str) -> list[str]:
    """The words of a text, without signs."""
    return _WORD.findall(text.lower())


def units(text: str) -> list[str]:
    """The words and signs of a text; a run of one sign is one."""
    return [found[0] for found in _UNIT.finditer(text.lower())]


def grams(tokens: Sequence[str], n: int) -> set[int]:
    """Hashes of all runs of n words; of the whole text if it is shorter."""
    if not tokens:
        return set()
    last = max(len(tokens) - n, 0)
    return {xxhash.xxh3_64_intdigest("\x1f".join(tokens[i : i + n]).encode()) for i in range(last + 1)}


def likeness(one: set[int], other: set[int]) -> float:
    """Jaccard's index: what both have over what either has; 1 for two empty sets."""
    either = len(one | other)
    return len(one & other) / either if either else 1.0


@cache
def _hashes() -> tuple[np.ndarray, np.ndarray]:
    draws = np.random.Generator(np.random.PCG64(0))
    factors = draws.integers(0, 2**63, size=SIZE, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    return factors, draws.integers(0, 2**63, size=SIZE, dtype=np.uint64)


def signature(found: set[int]) -> np.ndarray:
    """MinHash: of every hash function, the least value over the set; sets share each with the chance of their likeness.

    Args:
        found: hashed grams, at least one.

    Returns:
        [SIZE], uint32.

    Reference:
        Broder, On the resemblance and containment of documents, 1997.
    """
    factors, shifts = _hashes()
    values = np.fromiter(found, dtype=np.uint64, count=len(found))
    least = np.full(SIZE, np.iinfo(np.uint64).max, dtype=np.uint64)
    for start in range(0, len(values), 1024):
        mixed = values[start : start + 1024, None] * factors + shifts
        least = np.minimum(least, mixed.min(axis=0))
    return (least >> np.uint64(32)).astype(np.uint32)


class Likes:
    """Finds texts that are alike without comparing all pairs: signatures that agree in a band of rows are compared.

    Args:
        threshold: likeness from which two texts are alike.
    """

    def __init__(self, threshold: float):
        self.threshold = threshold
        self.rows = _rows(threshold)
        self.signatures: list[np.ndarray] = []
        self.bands: dict[bytes, list[int]] = {}

    def add(self, signature_S: np.ndarray) -> bool:
        """Take note of a text, unless one that is like it is known already; whether it was new."""
        keys = [
            i.to_bytes(2, "big") + signature_S[i : i + self.rows].tobytes()
            for i in range(0, SIZE - self.rows + 1, self.rows)
        ]
        near = {number for key in keys for number in self.bands.get(key, ())}
        if any(float(np.mean(self.signatures[number] == signature_S)) >= self.threshold for number in near):
            return False
        for key in keys:
            self.bands.setdefault(key, []).append(len(self.signatures))
        self.signatures.append(signature_S)
        return True


def _rows(threshold: float) -> int:
    """The most rows of a band at which hardly a pair at the threshold is missed (1 of 1000)."""
    fit = [r for r in (1, 2, 4, 8, 16, 32, 64, 128) if (1 - threshold**r) ** (SIZE // r) < 1e-3]
    return max(fit, default=1)
