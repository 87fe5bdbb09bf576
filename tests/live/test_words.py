"""The live pages say the same things in every language."""

from __future__ import annotations

import re
import string
from importlib.resources import files
from pathlib import Path

import pytest

from limbeck.live.words import words
from limbeck.report.words import LANGUAGES

ENGLISH = words("en").table


def places(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


@pytest.mark.parametrize("language", LANGUAGES)
def test_languages_have_the_same_keys_and_places(language: str) -> None:
    table = words(language).table
    assert set(table) == set(ENGLISH)
    assert {key for key, text in table.items() if places(text) != places(ENGLISH[key])} == set()


def test_every_word_that_is_asked_for_is_there() -> None:
    room = Path(str(files("limbeck.live")))
    texts = [path.read_text() for path in [*room.rglob("*.py"), *room.rglob("*.j2")]]
    asked = {key for text in texts for key in re.findall(r'say\(\s*"([\w.]+)"', text)}
    asked = {key for key in asked if key.startswith(("play.", "watch.")) and key[-1] != "."}
    assert len(asked) > 60
    assert asked - set(ENGLISH) == set()


def test_every_word_is_asked_for() -> None:
    room = Path(str(files("limbeck.live")))
    texts = "".join(path.read_text() for path in room.rglob("*") if path.suffix in (".py", ".j2"))
    ends = {f".{name}" for name in re.findall(r"\w+", texts)}
    assert {key for key in ENGLISH if f".{key.rpartition('.')[2]}" not in ends and "teacher-" not in key} == set()
