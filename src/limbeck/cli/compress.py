"""`limbeck compress`: the student with smaller numbers, if it answers as well as before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from limbeck.cli.run import Force, Overrides, recipe_of_run

Where = Annotated[Path, typer.Argument(help="A recipe, or a run's folder.", metavar="RECIPE|RUN", show_default=False)]


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
        right, size = found[model, "accuracy"], found[model, "bytes_on_disk"]
        interval = f"[{right['low']:.2%}, {right['high']:.2%}]"
        typer.echo(f"{model:<11} accuracy {right['value']:.2%} {interval}  {size['value'] / 1e6:.2f} MB")
    drop, most = found["compressed", "accuracy_drop"], found["compressed", "accuracy_drop_bound"]
    typer.echo(f"fall {drop['value']:.2%}, below {most['value']:.2%}; {drop['n']} validation rows")
    typer.echo(f"compressed  {folder / 'student'}")
