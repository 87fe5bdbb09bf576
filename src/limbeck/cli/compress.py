"""`limbeck compress`: the student with smaller numbers, if it answers as well as before."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from limbeck.cli.run import Force, Overrides, recipe_of_run

Where = Annotated[Path, typer.Argument(help="A recipe, or a run's folder.", metavar="RECIPE|RUN", show_default=False)]

SCORES = ("accuracy", "answer_accuracy", "perplexity")
"""What is told of each student, where it was measured."""


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(
        epilog="Examples: limbeck compress runs/quickstart; limbeck compress recipe.yaml compress=int8; "
        "limbeck compress runs/mine 'compress={type: int8, keep: [classifier], tolerance: {drop: 0.003, bound: 0.01}}'"
    )(compress)


def compress(where: Where, overrides: Overrides = None, force: Force = False) -> None:
    """Compress the trained student, the steps before it first if need be.

    It is compared with the student as it was trained, on the validation rows; one that lost more than the recipe's
    `compress.tolerance` allows is refused, and the layers that suffer most are named. Without a section `compress` in
    the recipe it is `int8`.
    """
    from limbeck.cli._quiet import quiet_libraries
    from limbeck.core.parts import build
    from limbeck.core.recipe import load_recipe

    loaded = load_recipe(recipe_of_run(where) if where.is_dir() else where, overrides or [])
    if loaded.compress is None:
        loaded = loaded.model_copy(update={"compress": build("compressor", "int8")})
    quiet_libraries()
    from limbeck.pipeline.run import run_recipe

    run_recipe(loaded, until="compress", force=force)
    folder = loaded.output / "compress"
    found = {(row["model"], row["name"]): row for row in json.loads((folder / "scores.json").read_text())}
    for model in ("student", "compressed"):
        told = [_figure(found[model, name]) for name in SCORES if (model, name) in found]
        size = found[model, "bytes_on_disk"]["value"] / 1e6
        typer.echo(f"{model:<11} {'  '.join(told)}  {size:.2f} MB")
    for word, name in (("fall", "accuracy_drop"), ("rise", "perplexity_rise")):
        if worse := found.get(("compressed", name)):
            most = found.get(("compressed", f"{name}_bound"))
            below = f", below {most['value']:.2%}" if most else ""
            typer.echo(f"{word} {worse['value']:.2%}{below}; {worse['n']} validation rows")
    typer.echo(f"compressed  {folder / 'student'}")


def _figure(row: Mapping[str, Any]) -> str:
    """A score with its interval; a single row has none."""
    form = ".4g" if row["name"] == "perplexity" else ".2%"
    interval = "" if row["low"] is None else f" [{row['low']:{form}}, {row['high']:{form}}]"
    return f"{row['name']} {row['value']:{form}}{interval}"
