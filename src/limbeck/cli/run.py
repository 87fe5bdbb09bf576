"""`limbeck run`, and the steps one by one: prepare, train, report; `evaluate` has a file of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from limbeck.pipeline.run import Result

Recipe = Annotated[Path, typer.Argument(help="The recipe, a YAML file.", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY.PATH=VALUE]...", help="Settings that take the place of the recipe's.", show_default=False
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Do steps again that are up to date.")]
Seeds = Annotated[
    int | None,
    typer.Option(min=2, help="Run under so many seeds and compare student and baseline.", show_default=False),
]

From = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="feedback",
        help="The next round: learn also from rows that the run's server has kept, in a folder of its own.",
        show_default=False,
    ),
]

_HELP = {
    "prepare": "Make the teacher ready: fine-tune it if the recipe says so.",
    "train": "Train the student (and the baseline), the teacher first if need be.",
    "report": "Write the report, the steps before it first if need be.",
}


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command(epilog="Example: limbeck run recipes/quickstart.yaml seed=1 stages.distil.epochs=40")(run)
    for name, text in _HELP.items():
        app.command(name, help=text, epilog=f"Example: limbeck {name} recipes/quickstart.yaml")(_until(name))


def run(
    recipe: Recipe, overrides: Overrides = None, force: Force = False, seeds: Seeds = None, learn_from: From = None
) -> None:
    """Run a recipe: teacher, student, baseline, evaluation, report.

    Steps that are up to date are skipped; a run that was killed goes on where it stopped.
    """
    from limbeck.core.errors import RecipeError

    if learn_from not in (None, "feedback"):
        raise RecipeError("a run can go on from one thing", got=f"--from {learn_from}", allowed="--from feedback")
    if seeds is not None and learn_from is not None:
        raise RecipeError("--from and --seeds do not go together", fix="run the next round first")
    if seeds is not None:
        _run_seeds(recipe, overrides or [], force, seeds)
    else:
        run_until(recipe, overrides or [], force, "report", next_round=learn_from is not None)


def _until(step: str):
    def command(recipe: Recipe, overrides: Overrides = None, force: Force = False) -> None:
        run_until(recipe, overrides or [], force, step)

    return command


def run_until(recipe: Path, overrides: list[str], force: bool, until: str, *, next_round: bool = False) -> None:
    """Run a recipe as far as a step, and print what came of it."""
    from limbeck.cli._quiet import quiet_libraries
    from limbeck.core.progress import is_main_process
    from limbeck.core.recipe import load_recipe

    loaded = load_recipe(recipe, overrides)  # before the libraries, so that a mistake is told at once
    quiet_libraries()
    from limbeck.pipeline import feedback
    from limbeck.pipeline.run import run_recipe

    if next_round:
        loaded = feedback.next_round(loaded, force)
    result = run_recipe(loaded, until=until, force=force)
    if not is_main_process():
        return
    if result.scores:
        _print_scores(result)
    if result.report is not None:
        typer.echo(f"student  {result.student}\nreport   {result.report}")
    else:
        typer.echo(f"{until} is done: {result.output / until}")


def _print_scores(result: Result) -> None:
    from rich.console import Console

    from limbeck.cli._summary import summary, took

    sentence, table = summary(result)
    out = Console(highlight=False)
    out.print(f"\n[bold]{sentence}[/bold]\n")
    out.print(table)
    out.print(f"\nsteps took {took(result)} in all")


def _run_seeds(recipe: Path, overrides: list[str], force: bool, seeds: int) -> None:
    from limbeck.cli._quiet import quiet_libraries
    from limbeck.core.recipe import load_recipe

    loaded = load_recipe(recipe, overrides)
    quiet_libraries()
    from limbeck.pipeline.seeds import run_seeds

    found = run_seeds(loaded, seeds, force=force)
    if found is None:  # only the first process compares
        return
    models = [name for name in found.rows[0] if name != "seed"]
    typer.echo("seed  " + "  ".join(f"{name:>9}" for name in models) + f"   ({found.metric})")
    for row in found.rows:
        typer.echo(f"{row['seed']:>4}  " + "  ".join(f"{row[name]:>9.4f}" for name in models))
    if found.difference is not None:
        typer.echo(
            f"student - baseline: {found.difference:+.4f} [{found.low:+.4f}, {found.high:+.4f}] over {seeds} seeds"
        )
    typer.echo(f"written to {found.path}")


def recipe_of_run(folder: Path) -> dict[str, Any]:
    """The recipe of a run, wherever its folder lies now."""
    from limbeck.core.errors import RecipeError

    path = folder / "recipe.json"
    if not path.is_file():
        raise RecipeError(f"{folder} is no run", got="no recipe.json", fix="a recipe, or a run's folder")
    return {**json.loads(path.read_text(encoding="utf-8")), "output": str(folder)}
