"""Classes: from what a table holds to names, and from names to the list of them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

from limbeck.core.errors import DataError, nearest
from limbeck.core.types import Rows
from limbeck.data.columns import column_values, plain

_INTEGER = re.compile(r"-?\d+")


def label_column(rows: Rows, column: str, names: Sequence[str] | None) -> list[str]:
    """The class of every row, by name.

    Args:
        rows: the table.
        column: its column with the classes.
        names: names of the integers 0, 1, ..., where they are known; without them a number is its own name.

    Raises:
        DataError: a label is missing or no class, with the file and the row.
    """
    found: dict[str, str] = {}  # one string a class, however many rows
    given = (_name(plain(value), names, rows, i, column) for i, value in enumerate(column_values(rows, column)))
    return [found.setdefault(name, name) for name in given]


def class_list(labels: Iterable[str]) -> tuple[str, ...]:
    """The different labels in order: by value if all are whole numbers, else by spelling."""
    found = set(labels)
    if all(_INTEGER.fullmatch(name) for name in found):
        return tuple(sorted(found, key=lambda name: (int(name), name)))
    return tuple(sorted(found))


def check_labels(labels: Sequence[str], classes: Sequence[str], rows: Rows, column: str) -> None:
    """Refuse labels that are none of the classes.

    Raises:
        DataError: the first such label, with the file and the row.
    """
    known = set(classes)
    for i, label in enumerate(labels):
        if label not in known:
            guess = nearest(label, classes)
            raise DataError(
                f"{rows.where(i)}: '{label}' in column `{column}` is no class of the training data",
                got=repr(label),
                allowed=_some(classes),
                fix=f"did you mean '{guess}'?" if guess else "add training rows of that class, or remove these rows",
            )


def _name(value: Any, names: Sequence[str] | None, rows: Rows, index: int, column: str) -> str:
    nothing = isinstance(value, str) and not value.strip()
    if value is None or nothing or (isinstance(value, float) and math.isnan(value)):
        fix = "give every row a label, or remove those without"
        raise DataError(f"{rows.where(index)}: the label in column `{column}` is missing", got=repr(value), fix=fix)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        if names is None:
            return str(value)
        if 0 <= value < len(names):
            return names[value]
        raise DataError(
            f"{rows.where(index)}: the label in column `{column}` stands for no class",
            got=value,
            allowed=f"0 to {len(names) - 1}: {_some(names)}",
            fix="the labels of this split may be secret; choose another" if value == -1 else None,
        )
    what = f"{rows.where(index)}: the label in column `{column}` is neither a name nor a whole number"
    raise DataError(what, got=f"{type(value).__name__} {str(value)[:80]}", allowed="a string or an integer")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 20 else f"{', '.join(names[:20])}, ... ({len(names)} in all)"
