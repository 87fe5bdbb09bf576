"""`limbeck cache`: record what the teacher says, once."""

from __future__ import annotations

import typer

from limbeck.cli.run import Force, Overrides, Recipe


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(
        "cache",
        epilog="Examples: limbeck cache recipe.yaml; limbeck cache recipe.yaml cache.bytes_per_token=60; "
        "limbeck cache recipe.yaml cache.type=sampled; torchrun --nproc-per-node=2 -m limbeck cache recipe.yaml",
    )(record)


def record(recipe: Recipe, overrides: Overrides = None, force: Force = False) -> None:
    """Record what the teacher says of every training and validation row, the teacher first if need be.

    `limbeck run` and `limbeck train` then read the recording and load no teacher. A recording that was killed goes on
    where it stopped. The recipe's section `cache` says what is kept; without one it is `cache: {}`.
    """
    from limbeck.cli._quiet import quiet_libraries
    from limbeck.core.progress import is_main_process
    from limbeck.core.recipe import load_recipe
    from limbeck.core.recipe.cache import CacheSection

    loaded = load_recipe(recipe, overrides or [])
    if loaded.cache is None:
        loaded = loaded.model_copy(update={"cache": CacheSection()})
    quiet_libraries()
    from limbeck.core import artifacts
    from limbeck.pipeline.cache import show_figures
    from limbeck.pipeline.run import run_recipe

    run_recipe(loaded, until="cache", force=force)
    if is_main_process():
        show_figures(artifacts.load(loaded.output / "cache"))
        typer.echo(f"cache is done: {loaded.output / 'cache'}")
