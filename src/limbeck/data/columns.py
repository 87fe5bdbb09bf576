"""Which column of a table plays which role, and what its cells are as plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from limbeck.core.errors import DataError, nearest
from limbeck.core.recipe import Data
from limbeck.core.types import Rows
from limbeck.data.sources._base import NamedRows

COMPETING = (frozenset({"messages"}), frozenset({"prompt", "answer"}))
"""Roles that say the same in different ways: who names one has no use for the others."""


def check_roles(data: Data, roles: Mapping[str, bool]) -> None:
    """Refuse a recipe that names a column for a role that its task does not have.

    Raises:
        DataError: it does.
    """
    for role in data.columns():
        if role != "id" and role not in roles:
            raise DataError(
                f"data.{role} names a column, but the task has no use for it",
                got=f"{role}: {data.columns()[role]}",
                allowed=", ".join([*roles, "id"]),
                fix=f"remove data.{role}, or choose another task",
            )


def map_columns(data: Data, roles: Mapping[str, bool], rows: Rows) -> dict[str, str]:
    """The column of each role: the one that the recipe names, or else the one that bears the role's name.

    A role that competes with one that the recipe names (see `COMPETING`) is not looked for.

    Args:
        data: the recipe's section.
        roles: the task's roles, and whether each is required.
        rows: a table that is not empty.

    Raises:
        DataError: a named column does not exist, or a required role has none.
    """
    named, there = data.columns(), column_names(rows)
    ways = [way for way in COMPETING if way & named.keys()]
    unwanted = frozenset().union(*COMPETING).difference(*ways) if ways else frozenset()
    found = {}
    for role in [*roles, "id"]:
        if role in named:
            if named[role] not in there:
                guess = nearest(named[role], there)
                raise DataError(
                    f"{rows.origin} has no column '{named[role]}'",
                    got=f"data.{role}={named[role]}",
                    allowed=", ".join(there),
                    fix=f"did you mean data.{role}={guess}?" if guess else f"data.{role}=COLUMN",
                )
            found[role] = named[role]
        elif role in there and role != "id" and role not in unwanted:
            found[role] = role
        elif roles.get(role):
            raise DataError(
                f"the rows of {rows.origin} have no column for `{role}`",
                allowed=", ".join(there),
                fix=f"data.{role}=COLUMN",
            )
    if not set(found) - {"id"}:
        what = f"the rows of {rows.origin} have no column for any of {', '.join(f'`{role}`' for role in roles)}"
        raise DataError(what, allowed=", ".join(there), fix=f"data.{next(iter(roles), 'text')}=COLUMN")
    return found


def column_names(rows: Rows) -> tuple[str, ...]:
    """All columns of a table that is not empty; rows of a list need not have the same ones."""
    names = getattr(rows.rows, "column_names", None)
    if names is None:
        names = dict.fromkeys(name for row in rows for name in row) if isinstance(rows.rows, list) else rows[0]
    return tuple(names)


def column_values(rows: Rows, name: str) -> Sequence[Any]:
    """All cells of a column, None where a row lacks it."""
    if hasattr(rows.rows, "column"):
        values: Sequence[Any] = rows.rows.column(name)
        return values
    return [row.get(name) for row in rows]


def class_names(rows: Rows, column: str) -> tuple[str, ...] | None:
    """The names of a column's integers, where the source knows them."""
    return rows.classes.get(column) if isinstance(rows, NamedRows) else rows.label_names


def plain(value: Any) -> Any:
    """A NumPy scalar as a Python value; anything else as it is."""
    import numpy as np

    return value.item() if isinstance(value, np.generic) else value


def slices(row: Mapping[str, Any], used: set[str]) -> dict[str, Any]:
    """The cells of columns that play no role and are JSON scalars: results can be told apart by them."""
    found = {name: plain(row[name]) for name in row if name not in used}
    return {name: value for name, value in found.items() if isinstance(value, str | int | float) and value == value}
