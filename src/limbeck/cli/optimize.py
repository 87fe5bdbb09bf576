"""`limbeck optimize`: the student cheaper to ask, with a table of before and after."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from limbeck.cli.export import Rows, Task, Where
from limbeck.cli.run import Force

if TYPE_CHECKING:
    from rich.table import Table

Passes = Annotated[
    list[str] | None,
    typer.Option(
        "--passes",
        metavar="PASS",
        help="A name, or with fields '{type: quantized_cache, keep: true}'; in order. Left out: those of the run's "
        "recipe, or the usual ones.",
        show_default=False,
    ),
]
Output = Annotated[
    Path | None,
    typer.Option("-o", "--output", help="Holds `optimize`; left out: the run, or here.", show_default=False),
]
Setting = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Another field of the recipe's section: batch_size, runs, max_samples, max_new_tokens.",
        show_default=False,
    ),
]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(
        epilog="Example: limbeck optimize runs/mine  ·  "
        "limbeck optimize my-model/ --task text-classification --rows some.csv -o faster  ·  "
        "limbeck optimize runs/mine --passes fuse_qkv --passes '{type: fuse_norms, keep: true}'"
    )(optimize)


def optimize(
    where: Where,
    passes: Passes = None,
    output: Output = None,
    task: Task = None,
    rows: Rows = None,
    setting: Setting = None,
    force: Force = False,
) -> None:
    """Make a student cheaper to ask: merged layers, one operator for several, caches, compiled steps.

    Each pass is tried on top of those before it that were kept, compared with the student on validation rows, and
    timed in turns with it. One that is slower, or says something else, is told and not kept. `limbeck list
    optimizations` tells them.
    """
    from limbeck.core.errors import RecipeError
    from limbeck.core.yaml import parse_yaml

    if not where.is_dir():
        raise RecipeError(f"{where} is no folder", fix="the folder of a run, or of a model")
    pairs = [each.partition("=") for each in setting or []]
    if wrong := next((name for name, equals, _ in pairs if not equals), None):
        raise RecipeError("a setting is KEY=VALUE", got=wrong, fix="--set batch_size=8")
    settings = {name: parse_yaml(value, f"--set {name}") for name, _, value in pairs}
    asked = None if not passes else [parse_yaml(each, "--passes") for each in passes]
    from limbeck.cli._quiet import quiet_libraries

    quiet_libraries()
    from rich.console import Console

    from limbeck.core.artifacts import read_manifest
    from limbeck.pipeline.api import optimize as make

    given = None if task is None else parse_yaml(task, "--task")
    folder = make(where, asked, output=output, task=given, rows=rows, force=force, **settings)
    told = read_manifest(folder)
    for note in told["notes"]:
        typer.echo(f"note: {note}", err=True)
    Console(highlight=False, markup=False, emoji=False).print(_table(told))
    kept = ", ".join(told["kept"]) or "nothing"
    typer.echo(f"kept {kept}; {told['speedup']:.2f} times as fast, {told['rows']} rows compared")
    typer.echo(f"student  {folder / 'student'}")


def _table(told: Mapping[str, Any]) -> Table:
    """Every pass: what became of it; then its figures, each beside those before."""
    from rich.table import Table

    from limbeck.report.facts import Facts
    from limbeck.report.formats import DASH
    from limbeck.report.tables.optimized import passes

    shown = passes(Facts(title="", recipe={}, scores=[], manifests={"optimize": told}))
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", caption=shown.caption, caption_justify="left")
    used = [i for i in range(len(shown.columns) - 1) if any(line.cells[i].text != DASH for line in shown.lines)]
    table.add_column(shown.columns[0], no_wrap=True)
    for i in used:
        words = i + 1 in shown.words
        table.add_column(shown.columns[i + 1], justify="left" if words else "right", min_width=18 if words else None)
    for line in shown.lines:
        cells = [line.cells[i] for i in used]
        table.add_row(line.head, *(f"{cell.text}\n{cell.small}".strip() for cell in cells))
    return table
