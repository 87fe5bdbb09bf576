"""`limbeck tune`: search the recipe's values on the validation rows."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from limbeck.cli.run import Overrides, Recipe

if TYPE_CHECKING:
    from rich.table import Table

    from limbeck.pipeline.tune import TuneReport

Trials = Annotated[
    int | None,
    typer.Option(min=1, help="How many, in place of the recipe's `tune.trials`.", show_default=False),
]
_SHOWN = 20


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(epilog="Example: limbeck tune mine.yaml output=runs/search")(tune)


def tune(recipe: Recipe, overrides: Overrides = None, trials: Trials = None) -> None:
    """Search temperature, weights, layers, learning rate and the like.

    The recipe's `tune` section says which values. The teacher is prepared once, the student is trained with each set
    of values, and the validation rows decide; test rows are not read. A search that was killed goes on.
    """
    from limbeck.cli._quiet import quiet_libraries
    from limbeck.core.recipe import load_recipe

    load_recipe(recipe, overrides or [])  # before the libraries, so that a mistake is told at once
    quiet_libraries()
    from limbeck.pipeline.tune import tune as search

    _print(search(recipe, overrides or [], trials=trials))


def _print(found: TuneReport) -> None:
    from rich.console import Console

    out = Console(highlight=False, markup=False, emoji=False)
    out.print(_table(found))
    if len(found.trials) > _SHOWN:
        out.print(f"and {len(found.trials) - _SHOWN} more, below")
    out.print(_caution(found))
    typer.echo(f"trials   {found.output / 'trials.csv'}\npicture  {found.output / 'tune.svg'}\nrecipe   {found.recipe}")
    typer.echo(f"next: limbeck run {shlex.quote(str(found.recipe))}")


def _table(found: TuneReport) -> Table:
    from rich.table import Table

    from limbeck.pipeline.tuning.figure import short_names

    table = Table(box=None, padding=(0, 3, 0, 0), header_style="bold")
    metrics = [name for name in ("accuracy", "loss") if name in (found.best.metrics or {})]
    metrics.sort(key=lambda name: name != found.metric)
    for name in ("trial", *short_names(found.best.values).values(), *metrics, ""):
        table.add_column(name, justify="left" if name == "" else "right", overflow="fold")
    for trial in found.ranked()[:_SHOWN]:
        scores = [f"{trial.metrics[name]:.4f}" if trial.metrics else "-" for name in metrics]
        note = "best" if trial is found.best else "as good" if found.tied(trial) else ""
        values = [str(value) for value in trial.values.values()]
        table.add_row(str(trial.number), *values, *scores, f"failed: {trial.reason}" if trial.reason else note)
    return table


def _caution(found: TuneReport) -> str:
    """How much of the order is luck."""
    if found.standard_error is None:
        return "small differences in loss may be luck; run the best recipes with --seeds to tell"
    rows = f"{found.best.rows:,} validation rows"
    return (
        f"standard error of the best accuracy on {rows}: {found.standard_error:.4f}; trials within it are ties, "
        "and the best one's own score is a little too good, as it was picked for it"
    )
