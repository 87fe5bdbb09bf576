"""`limbeck doctor`: what is wrong with a recipe before compute, or with a run after."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from limbeck.cli.run import Overrides

if TYPE_CHECKING:
    from limbeck.doctor._base import Finding

_STYLES = {"error": "bold red", "warning": "yellow", "note": "cyan", "ok": "green"}


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(epilog="Example: limbeck doctor recipes/quickstart.yaml; limbeck doctor runs/quickstart")(doctor)


def doctor(
    target: Annotated[
        Path, typer.Argument(metavar="RECIPE|RUN", help="A recipe, or the folder of a run.", show_default=False)
    ],
    overrides: Overrides = None,
    probe: Annotated[bool, typer.Option("--probe", help="Make 20 steps too, to say how long it all takes.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="A list of findings, for programs.")] = False,
) -> None:
    """Look at a recipe before anything is computed, or at what a run left.

    Each finding has its severity (error, warning, note, ok), the reason, the evidence, and what to change. The
    status is 1 if there is an error.
    """
    findings = _run(target, overrides or [], probe) if target.is_dir() else _recipe(target, overrides or [], probe)
    if as_json:
        import json
        from dataclasses import asdict

        typer.echo(json.dumps([asdict(finding) for finding in findings], indent=2, ensure_ascii=False))
    else:
        _print(findings)
    if any(finding.severity == "error" for finding in findings):
        raise typer.Exit(1)


def _run(folder: Path, overrides: list[str], probe: bool) -> list[Finding]:
    from limbeck.core.errors import RecipeError

    if overrides or probe:
        raise RecipeError("a run is looked at as it is", got=str(folder), fix="leave out overrides and --probe")
    from limbeck.pipeline.doctor import examine_run

    return examine_run(folder)


def _recipe(path: Path, overrides: list[str], probe: bool) -> list[Finding]:
    from limbeck.cli._quiet import quiet_libraries
    from limbeck.core.recipe import load_recipe

    recipe = load_recipe(path, overrides)  # before the libraries, so that a mistake is told at once
    quiet_libraries()
    from limbeck.pipeline.doctor import examine_recipe

    return examine_recipe(recipe, probe=probe)


def _print(findings: list[Finding]) -> None:
    from collections import Counter

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    out = Console(highlight=False, markup=False, emoji=False)
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for each in findings:
        told = Text(each.reason)
        if each.evidence:
            told.append(f"\n{each.evidence}", "dim")
        if each.change:
            told.append("\nchange: ", "bold").append(each.change)
        table.add_row(Text(each.severity, _STYLES[each.severity]), each.check, told)
    out.print(table)
    counts = Counter[str](finding.severity for finding in findings)
    out.print(", ".join(f"{counts[name]} {name}" for name in _STYLES))
