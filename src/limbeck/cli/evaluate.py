"""`limbeck evaluate`: a run's models, any others side by side, or predictions that were recorded elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from limbeck.cli.run import Force, Overrides, run_until

Recipe = Annotated[Path | None, typer.Argument(help="The recipe, a YAML file.", show_default=False)]
Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        metavar="NAME=WHERE",
        help="Measure this one: a folder (a model, an artifact, a run), a hub name, or https://HOST/v1#MODEL.",
        show_default=False,
    ),
]
Recorded = Annotated[
    list[str] | None,
    typer.Option(
        "--predictions",
        metavar="NAME=FILE",
        help="Score what this model said, recorded as JSONL, CSV or Parquet; needs no recipe and no model.",
        show_default=False,
    ),
]
Output = Annotated[
    Path | None,
    typer.Option("-o", "--output", help="Folder of the artifact; left out: evaluation.", show_default=False),
]
Against = Annotated[
    str | None, typer.Option(metavar="NAME", help="The model that the others are compared with.", show_default=False)
]
Key = Annotated[
    str | None,
    typer.Option(
        "--api-key-env", metavar="VARIABLE", help="The environment variable that holds the key.", show_default=False
    ),
]
Template = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT", help="What addresses are asked, with {prompt} in the prompt's place.", show_default=False
    ),
]
Tokens = Annotated[
    int | None,
    typer.Option(
        "--budget-tokens", metavar="N", help="Most tokens, read and written, of each address.", show_default=False
    ),
]
Columns = Annotated[
    str | None,
    typer.Option(
        metavar="MEANING=COLUMN,...", help="The files' own names of columns; {model}: the model's.", show_default=False
    ),
]
Classes = Annotated[
    str | None,
    typer.Option(metavar="NAME,...", help="The classes, in the order of the probabilities.", show_default=False),
]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(
        epilog="Example: limbeck evaluate recipes/quickstart.yaml  ·  limbeck evaluate mine.yaml "
        "--model small=runs/mine --model big=https://host/v1#name --against big  ·  "
        "limbeck evaluate --predictions a=a.jsonl --predictions b=b.parquet --columns id=question_id,correct=is_correct"
    )(evaluate)


def evaluate(
    recipe: Recipe = None,
    overrides: Overrides = None,
    model: Models = None,
    predictions: Recorded = None,
    output: Output = None,
    against: Against = None,
    api_key_env: Key = None,
    template: Template = None,
    budget_tokens: Tokens = None,
    columns: Columns = None,
    classes: Classes = None,
    force: Force = False,
) -> None:
    """Score teacher, student and baseline, the steps before it first if need be; or any other models.

    With --model, models are measured side by side on the recipe's rows, and nothing is trained. With --predictions,
    recorded answers are scored. Either leaves scores.json, the predictions and details in one folder.
    """
    from limbeck.core.errors import RecipeError

    if model and predictions:
        raise RecipeError("only one of --model and --predictions can be done at a time")
    _refuse({"--api-key-env": api_key_env, "--template": template, "--budget-tokens": budget_tokens}, bool(model))
    _refuse({"--columns": columns, "--classes": classes}, bool(predictions))
    _refuse({"--output": output, "--against": against}, bool(model or predictions))
    if not model and not predictions:
        if recipe is None:
            raise RecipeError("there is nothing to evaluate", fix="a recipe, or --predictions NAME=FILE")
        run_until(recipe, overrides or [], force, "evaluate")
        return
    if recipe is None and model:
        raise RecipeError("models are measured on a recipe's rows", fix="limbeck evaluate RECIPE --model NAME=WHERE")
    from limbeck.core.recipe import load_recipe

    # Before the libraries, so that a mistake is told at once.
    loaded = None if recipe is None else load_recipe(recipe, overrides or [])
    models = pairs(model, "--model") if model else None
    tables = pairs(predictions, "--predictions") if predictions else None
    named = pairs(columns.split(","), "--columns") if columns else None
    from limbeck.cli._quiet import quiet_libraries

    quiet_libraries()
    from limbeck.pipeline.api import evaluate as measure

    measured = measure(
        loaded,
        models=models,
        predictions=tables,
        output=output or "evaluation",
        against=against,
        api_key=api_key_env,
        template=template or "{prompt}",
        budget=None if budget_tokens is None else {"tokens": budget_tokens},
        columns=named,
        classes=classes.split(",") if classes else None,
        force=force,
    )
    _show(measured.scores, measured.folder)


def _refuse(options: Mapping[str, object], used: bool) -> None:
    """Refuse options that nothing would read."""
    from limbeck.core.errors import RecipeError

    given = [name for name, value in options.items() if value is not None]
    if given and not used:
        fix = "--model NAME=WHERE or --predictions NAME=FILE"
        raise RecipeError(f"{', '.join(given)} would have no effect", fix=fix)


def pairs(words: Sequence[str], option: str) -> dict[str, str]:
    """`NAME=VALUE` words as a mapping."""
    from limbeck.core.errors import RecipeError

    found: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not (name and equals and value):
            raise RecipeError(f"{option} wants NAME=VALUE", got=word)
        if name in found:
            raise RecipeError(f"{option} has the name `{name}` twice")
        found[name] = value
    return found


def _show(scores: list[dict[str, object]], folder: Path) -> None:
    from rich.console import Console

    from limbeck.cli._summary import side_by_side

    Console(highlight=False).print(side_by_side(scores))
    typer.echo(f"scores  {folder / 'scores.json'}")
