"""`limbeck init`: a commented recipe to start from."""

from __future__ import annotations

from enum import StrEnum
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer


class TaskName(StrEnum):
    """Tasks that a recipe can be written for."""

    causal_lm = "causal-lm"
    text_classification = "text-classification"
    image_classification = "image-classification"


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(epilog="Example: limbeck init text-classification -o mine.yaml")(init)


def init(
    task: Annotated[TaskName, typer.Argument(help="What is to be learned.", show_default=False)],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File to write; left out: standard output.")
    ] = None,
) -> None:
    """Write a commented recipe for a task; it runs as it is, and says what to change."""
    from limbeck.core.errors import RecipeError

    text = (files("limbeck.cli") / "templates" / f"{task}.yaml").read_text(encoding="utf-8")
    if output is None:
        typer.echo(text, nl=False)
        return
    try:
        with output.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise RecipeError(f"{output} is already there", fix="choose another name; nothing is overwritten") from None
    typer.echo(f"written to {output}; next: limbeck run {output}", err=True)
