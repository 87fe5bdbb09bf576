"""Every language says everything that another says."""

from __future__ import annotations

import re
import string
from importlib.resources import files
from pathlib import Path

import pytest

from limbeck.report.words import LANGUAGES, words

ENGLISH = words("en").table


def places(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


@pytest.mark.parametrize("language", LANGUAGES)
def test_languages_have_the_same_keys_and_places(language: str) -> None:
    table = words(language).table
    assert set(table) == set(ENGLISH)
    assert {key for key, text in table.items() if places(text) != places(ENGLISH[key])} == set()


def test_every_word_that_is_asked_for_is_there() -> None:
    room = Path(str(files("limbeck.report")))
    texts = [path.read_text() for path in [*room.rglob("*.py"), *room.rglob("*.j2")]]
    asked = {key for text in texts for key in re.findall(r'say\(\s*"([\w.]+)"', text)}
    assert len(asked) > 100
    assert asked - set(ENGLISH) == set()


def test_chinese_is_chinese() -> None:
    table = words("zh").table
    signs = {"metric.auroc", "list.sentence", "training.to", "metric.lower"}
    plain = {
        k for k, t in table.items() if k not in signs and not re.search("[\u4e00-\u9fff\uff00-\uffef\u3001-\u3002]", t)
    }
    assert {key for key in plain if re.sub(r"\{[^}]*\}|[\W\d_]", "", table[key])} == set()


def test_names_in_a_row() -> None:
    say = words("en")
    assert [say.some(names) for names in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == ["", "a", "a and b", "a, b and c"]
