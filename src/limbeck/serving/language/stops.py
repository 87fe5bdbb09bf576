"""Stop strings: an answer ends before the first of them, wherever pieces are cut."""

from __future__ import annotations

from collections.abc import Sequence


class Stops:
    """What of a text that comes in pieces may be shown.

    Args:
        words: that end it, none of them empty.

    Attributes:
        found: whether one of them has come; nothing behind it is shown.
    """

    def __init__(self, words: Sequence[str]):
        self._words = tuple(words)
        self._held = ""
        self.found = False

    def feed(self, piece: str) -> str:
        """What can be shown now: all but what may be the beginning of a stop string."""
        if self.found or not self._words:
            return "" if self.found else piece
        text = self._held + piece
        places = [at for word in self._words if (at := text.find(word)) >= 0]
        if places:
            self.found, self._held = True, ""
            return text[: min(places)]
        keep = max(self._begun(text, word) for word in self._words)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def rest(self) -> str:
        """What was held back, when nothing more comes."""
        held, self._held = self._held, ""
        return held

    @staticmethod
    def _begun(text: str, word: str) -> int:
        """Characters at the end of a text that are the beginning of a word."""
        most = min(len(text), len(word) - 1)
        return next((count for count in range(most, 0, -1) if text.endswith(word[:count])), 0)
