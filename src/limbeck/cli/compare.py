"""`limbeck compare`: several runs on one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(epilog="Example: limbeck compare runs/small runs/large -o runs/comparison")(compare)


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Folders of finished runs.", show_default=False)],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the page.")] = Path("comparison"),
    title: Annotated[str | None, typer.Option(help="Of the page; left out: the runs by name.")] = None,
    language: Annotated[
        str | None, typer.Option(help="en or zh; left out: that of the first run's recipe.", show_default=False)
    ] = None,
) -> None:
    """Compare the students of several runs: one page, Markdown and JSON.

    Quality against size with the Pareto front, all scores side by side, what differs in the recipes, and the students
    in twos on the rows that both answered: difference, interval, McNemar's test corrected for their number.
    """
    from limbeck.core.errors import RecipeError
    from limbeck.report.words import LANGUAGES

    if language is not None and language not in LANGUAGES:
        raise RecipeError("the page is not written in that language", got=language, allowed=", ".join(LANGUAGES))
    from limbeck.cli._quiet import quiet_libraries

    quiet_libraries()
    from limbeck.pipeline.compare import compare as write

    made = write(runs, output, title=title, language=language)
    typer.echo(made.headline)
    for file in made.files:
        typer.echo(str(file))
