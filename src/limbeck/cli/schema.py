"""`limbeck schema`: the recipe's JSON schema, for editors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(epilog="Example: limbeck schema -o limbeck.schema.json")(schema)


def schema(
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File to write; left out: standard output.")
    ] = None,
) -> None:
    """Write the JSON schema of recipes; editors complete and check with it.

    Put `# yaml-language-server: $schema=limbeck.schema.json` on the first line of a recipe.
    """
    import json

    from limbeck.core.recipe import Recipe

    text = json.dumps(Recipe.model_json_schema(), indent=2) + "\n"
    if output is None:
        typer.echo(text, nl=False)
    else:
        output.write_text(text, encoding="utf-8")
        typer.echo(f"written to {output}", err=True)
