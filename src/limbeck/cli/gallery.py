"""`limbeck gallery`: an index page of reports."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(epilog="Example: limbeck gallery gallery recipes/quickstart.yaml runs/mine")(gallery)


def gallery(
    folder: Annotated[Path, typer.Argument(help="Folder of the gallery.", show_default=False)],
    runs: Annotated[
        list[Path] | None,
        typer.Argument(help="Runs, or recipes to run first; left out: all in the folder `runs`.", show_default=False),
    ] = None,
    language: Annotated[
        str | None, typer.Option(help="en or zh; left out: that of the first report.", show_default=False)
    ] = None,
) -> None:
    """Show the reports of several runs, such as the shipped recipes, from one page.

    The folder holds all that it shows and can be copied anywhere. A recipe is run, or brought up to date, first.
    """
    from limbeck.core.errors import RecipeError
    from limbeck.report.words import LANGUAGES

    if language is not None and language not in LANGUAGES:
        raise RecipeError("the page is not written in that language", got=language, allowed=", ".join(LANGUAGES))
    from limbeck.cli._quiet import quiet_libraries

    quiet_libraries()
    from limbeck.pipeline.gallery import gallery as write

    typer.echo(str(write(folder, runs or [], language=language)))
