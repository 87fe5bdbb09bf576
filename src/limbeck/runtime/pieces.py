"""Tokens that come one by one, as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class Pieces:
    """The text of an answer piece by piece; a character that takes several tokens comes when it is whole.

    Args:
        tokenizer: that the tokens are of.
    """

    def __init__(self, tokenizer: Any):
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._start = self._shown = 0

    def feed(self, token: int) -> str:
        """What a token adds; nothing where it is within a character."""
        self._ids.append(token)
        piece = self._behind()
        if not piece or piece.endswith("\ufffd"):
            return ""
        self._start, self._shown = self._shown, len(self._ids)
        return piece

    def rest(self) -> str:
        """What is left at the end, whole or not."""
        rest = self._behind()
        self._start, self._shown = self._shown, len(self._ids)
        return rest

    def _behind(self) -> str:
        """The text behind what was shown; some tokens before it are its surroundings, which it may hang on."""
        whole = self._decoded(self._ids[self._start :])
        return whole[len(self._decoded(self._ids[self._start : self._shown])) :]

    def _decoded(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))
