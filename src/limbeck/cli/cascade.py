"""`limbeck cascade`: how many rows larger models must see for which accuracy, and the threshold that was chosen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from limbeck.cli.run import Force, Overrides, recipe_of_run

if TYPE_CHECKING:
    from rich.table import Table

Where = Annotated[Path, typer.Argument(help="A recipe, or a run's folder.", metavar="RECIPE|RUN", show_default=False)]
Lines = Annotated[int, typer.Option("--rows", min=2, help="Rows of the table, at most.")]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(
        epilog="Examples: limbeck cascade runs/banking77; limbeck cascade recipe.yaml "
        "'cascade={promise: {accuracy: 0.93}, level: 0.95}'"
    )(cascade)


def cascade(where: Where, overrides: Overrides = None, force: Force = False, rows: Lines = 12) -> None:
    """Choose the confidence below which the next model is asked; the steps before it first if need be.

    The threshold keeps the recipe's `cascade.promise` with the chance `cascade.level`; it is chosen on validation rows
    and judged on test rows. Without a section `cascade` the next model is the teacher, and the promise that no more
    than 1 % of the rows has a wrong answer where the teacher's is right.
    """
    from limbeck.cli._quiet import quiet_libraries
    from limbeck.core.recipe import load_recipe
    from limbeck.core.recipe.cascade import Cascade

    loaded = load_recipe(recipe_of_run(where) if where.is_dir() else where, overrides or [])
    if loaded.cascade is None:
        loaded = loaded.model_copy(update={"cascade": Cascade()})
    quiet_libraries()
    from rich.console import Console

    from limbeck.pipeline.run import run_recipe

    run_recipe(loaded, until="cascade", force=force)
    folder = loaded.output / "cascade"
    curve = json.loads((folder / "curve.json").read_text(encoding="utf-8"))
    out = Console(highlight=False)
    out.print(table_of(curve, rows))
    for line in told(curve):
        out.print(line)
    out.print(f"serve it: limbeck serve {loaded.output} --cascade")


def table_of(curve: dict[str, Any], rows: int) -> Table:
    """The curve as a table, on test rows where there are some; the chosen threshold stands out.

    Args:
        curve: as in `curve.json`.
        rows: of the table, at most; those between are left out.
    """
    from rich.table import Table

    judged = "test" in curve
    points = distinct(curve["test"]["points"] if judged else curve["fit"])
    chosen = curve["chosen"]["threshold"]
    kept = thinned(points, rows, chosen)
    title = f"{curve['test']['n']} test rows" if judged else f"{curve['n']} validation rows"
    table = Table(title=title, title_justify="left")
    for name in ("threshold", *(f"to {model}" for model in curve["models"][1:]), "accuracy"):
        table.add_column(name, justify="right")
    if judged:
        table.add_column(f"{curve['test']['confidence']:.0%} interval", justify="right")
    for point in kept:
        cells = [_threshold(point["threshold"]), *(f"{share:.1%}" for share in point["asked"][1:])]
        cells.append(f"{point['accuracy']:.2%}")
        if judged:
            cells.append(f"{point['low']:.2%} - {point['high']:.2%}")
        table.add_row(*cells, style="bold" if point["threshold"] == chosen else None)
    return table


def told(curve: dict[str, Any]) -> list[str]:
    """What was chosen, and what came of it, in words."""
    bound = "at least" if curve["promise"] == "accuracy" else "at most"
    lines = [
        f"chosen: ask the next model below [bold]{_threshold(curve['chosen']['threshold'])}[/bold]",
        f"promised: {curve['promise']} of {bound} {curve['target']:g}, with {curve['level']:.0%}, "
        f"fitted on {curve['n']} validation rows",
    ]
    if "test" in curve:
        lines.append(f"on the test rows the promise is {'kept' if curve['test']['kept'] else '[red]not kept[/red]'}")
    return lines


def distinct(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of neighbours that send the same rows on, the first."""
    return [p for i, p in enumerate(points) if i == 0 or p["asked"] != points[i - 1]["asked"]]


def thinned(points: list[dict[str, Any]], most: int, chosen: float) -> list[dict[str, Any]]:
    """So many points at most, evenly apart in the share of the last model, both ends and the chosen one among them.

    Args:
        points: from the highest threshold.
        most: at least 2; one more where the chosen one is between.
        chosen: a threshold; where neighbours were merged, the point that stands for it.
    """
    place = max((i for i, p in enumerate(points) if p["threshold"] >= chosen), default=0)
    points[place] = {**points[place], "threshold": chosen}
    wanted = [i / (most - 1) for i in range(most)]
    near = {min(range(len(points)), key=lambda i: abs(points[i]["teacher_share"] - share)) for share in wanted}
    return [points[i] for i in sorted({0, len(points) - 1, place} | near)]


def _threshold(value: float) -> str:
    """Enough digits to tell it from 1."""
    if value > 1:
        return "always"
    return f"{value:.4f}" if value < 0.9999 or value == 1 else f"{value:.7f}"
