"""What the live pages say of their own, by language; the same files and keys as the report's words."""

from __future__ import annotations

from limbeck.report.words import Words
from limbeck.report.words import words as _words


def words(language: str) -> Words:
    """The words of a language."""
    return _words(language, "limbeck.live.words")
