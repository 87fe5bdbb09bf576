"""`limbeck list`: the parts that recipes can name."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class Kind(StrEnum):
    """What can be listed."""

    objectives = "objectives"
    sources = "sources"
    tasks = "tasks"
    schedules = "schedules"
    temperatures = "temperatures"
    augmentations = "augmentations"


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("list", epilog="Example: limbeck list objectives")(list_parts)


def list_parts(kind: Annotated[Kind, typer.Argument(help="Which parts.", show_default=False)]) -> None:
    """Print the parts of a kind: name, one line, fields, and the paper it comes from."""
    from dataclasses import fields

    from rich.console import Console
    from rich.table import Table

    from limbeck.core.parts import find, names, reference, summary

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for title in ("type", "what", "fields", "paper"):
        table.add_column(title, overflow="fold")
    for name in names(kind.removesuffix("s")):
        part = find(kind.removesuffix("s"), name)
        table.add_row(name, summary(part), ", ".join(f.name for f in fields(part)), reference(part))  # type: ignore[arg-type]
    # Square brackets in a text are brackets, not rich's markup.
    Console(highlight=False, markup=False, emoji=False).print(table)
