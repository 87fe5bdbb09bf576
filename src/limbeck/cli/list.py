"""`limbeck list`: the parts that recipes can name."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer


class Kind(StrEnum):
    """What can be listed."""

    objectives = "objectives"
    sources = "sources"
    tasks = "tasks"
    schedules = "schedules"
    temperatures = "temperatures"
    augmentations = "augmentations"
    curricula = "curricula"
    perturbations = "perturbations"
    verifiers = "verifiers"
    filters = "filters"
    metrics = "metrics"
    compressors = "compressors"
    optimizations = "optimizations"
    exporters = "exporters"
    deployments = "deployments"
    checks = "checks"

    @property
    def part(self) -> str:
        """The kind by its name in `KINDS`: one of them."""
        return {"curricula": "curriculum"}.get(self.value, self.value.removesuffix("s"))


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("list", epilog="Example: limbeck list objectives")(list_parts)


def list_parts(
    kind: Annotated[Kind, typer.Argument(help="Which parts.", show_default=False)],
    name: Annotated[str | None, typer.Argument(help="One of them, with its fields and its paper.")] = None,
    long: Annotated[bool, typer.Option("--long", help="Fields and papers of all.")] = False,
) -> None:
    """Print the parts of a kind: name and one line; with a name or --long, fields and the paper it comes from."""
    from rich.console import Console

    from limbeck.core.parts import find

    single = kind.part
    # Square brackets in a text are brackets, not rich's markup.
    console = Console(highlight=False, markup=False, emoji=False)
    if name is not None:
        _print_whole(console, find(single, name))
        return
    for heading, names in _folders(single).items():
        if heading:
            console.print(f"{heading}:")
        if long:
            for each in names:
                _print_whole(console, find(single, each))
        else:
            console.print(_lines(single, names))


def _folders(kind: str) -> dict[str, list[str]]:
    """The names of a kind's parts by the folder they are in; by nothing where a kind has one folder."""
    from limbeck.core.parts import KINDS, find, names

    found: dict[str, list[str]] = {}
    for name in names(kind):
        module = find(kind, name).__module__
        home = next((place for place in KINDS[kind] if module.startswith(place)), module)
        found.setdefault(home.rpartition(".")[2] if len(KINDS[kind]) > 1 else "", []).append(name)
    return found


def _lines(kind: str, names: list[str]) -> Any:
    """One row for each part."""
    from rich.table import Table

    from limbeck.core.parts import find, summary

    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name in names:
        table.add_row(name, summary(find(kind, name)))
    return table


def _print_whole(console: Any, part: Any) -> None:
    """A part with its fields and its paper."""
    from dataclasses import fields

    from rich.padding import Padding

    from limbeck.core.parts import reference, summary

    console.print(part.type())
    paper = reference(part)
    for line in (summary(part), f"fields: {', '.join(f.name for f in fields(part))}", *([paper] if paper else [])):
        console.print(Padding(line, (0, 0, 0, 4)))
