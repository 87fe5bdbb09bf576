"""What the report says of its own, by language: one YAML file a language, the same keys in all of them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

LANGUAGES = ("en", "zh")


class Words:
    """The fixed words of a language.

    Args:
        language: one of LANGUAGES.
        table: texts by dotted key, with places in braces for what differs from report to report.
    """

    def __init__(self, language: str, table: Mapping[str, str]):
        self.language, self.table = language, table

    def __call__(self, key: str, /, **places: Any) -> str:
        """A text with its places filled."""
        return self.table[key].format(**places)

    def either(self, key: str, other: str, /, **places: Any) -> str:
        """A text, or the other words where the language has no such key: a name that a user chose."""
        return self(key, **places) if key in self.table else other

    def unit(self, text: str) -> str:
        """A unit as this language writes it; most are the same in all of them."""
        return self.table.get(f"unit.{text.strip()}", text)

    def some(self, names: list[str]) -> str:
        """Things in a row: a, b and c."""
        return self("list.comma").join(names[:-1]) + self("list.and") + names[-1] if len(names) > 1 else "".join(names)


@cache
def words(language: str, package: str = "limbeck.report.words") -> Words:
    """The words of a language, of the report or of another package with such files."""
    text = files(package).joinpath(f"{language}.yaml").read_text(encoding="utf-8")
    return Words(language, dict(_flat(yaml.safe_load(text))))


def _flat(group: Mapping[str, Any], above: str = "") -> list[tuple[str, str]]:
    found = []
    for key, value in group.items():
        found += _flat(value, f"{above}{key}.") if isinstance(value, Mapping) else [(f"{above}{key}", str(value))]
    return found
