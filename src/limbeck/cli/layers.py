"""`limbeck layers`: the names that `match` takes, with the shapes of what is read there."""

from __future__ import annotations

from typing import Annotated

import typer

Name = Annotated[
    str, typer.Argument(help="A folder, a hub name, or a model_type such as bert (its default size).", metavar="MODEL")
]
Filter = Annotated[
    str | None,
    typer.Argument(metavar="PATTERN", help="Only layers that fit, with * and ranges: 'encoder.layer.{0..2}.*'."),
]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit on the hub.")]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("layers", epilog="Example: limbeck layers runs/quickstart/prepare/teacher 'resnet.encoder.stages.*'")(
        list_layers
    )


def list_layers(model: Name, pattern: Filter = None, revision: Revision = None) -> None:
    """Print a model's layers as `match` names them: name, kind, and the shape that it gives out.

    Layers that differ in a number alone are one line, with a range. B is the batch, T the tokens. Weights are not
    loaded.
    """
    from limbeck.cli._quiet import quiet_libraries

    quiet_libraries()
    from rich.console import Console
    from rich.table import Table

    from limbeck.alignment.layers import expand
    from limbeck.models.describe import describe_layers, together

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for title in ("layer", "kind", "output", "parameters"):
        table.add_column(title, overflow="fold", justify="right" if title == "parameters" else "left")
    for row in together(describe_layers(model, () if pattern is None else expand(pattern), revision)):
        table.add_row(row.name, row.kind, row.shape, f"{row.parameters:,}")
    # Into a file or a pipe go whole lines, or nothing could be found in them.
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = max(console.width, 200)
    console.print(table)
