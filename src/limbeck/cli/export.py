"""`limbeck export`: a student in the formats of those who will run it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from limbeck.cli.run import Force

if TYPE_CHECKING:
    from limbeck.serving.deploy import Deployment

Where = Annotated[
    Path, typer.Argument(help="A run's folder, or a Hugging Face folder.", metavar="RUN|FOLDER", show_default=False)
]
To = Annotated[
    list[str] | None,
    typer.Option(
        "--to",
        metavar="FORMAT",
        help="A name, or with fields '{type: onnx, precision: fp16}'. Left out: those of the run's recipe.",
        show_default=False,
    ),
]
For = Annotated[
    list[str] | None,
    typer.Option(
        "--for",
        metavar="PLACE",
        help="docker, kserve or triton, or with fields '{type: kserve, image: ...}': the files which that place wants.",
        show_default=False,
    ),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "-o",
        "--output",
        help="Holds what is written; left out: export, and deploy for --for, in the run or here.",
        show_default=False,
    ),
]
Task = Annotated[
    str | None,
    typer.Option(
        metavar="TASK",
        help="Of a folder: a name, or '{type: text-classification, max_length: 64}'. Left out: as its config tells.",
        show_default=False,
    ),
]
Rows = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Real rows of a folder's task to compare on, columns named as in recipes. Left out: made-up ones.",
        show_default=False,
    ),
]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(
        epilog="Example: limbeck export runs/mine --to onnx --to openvino  ·  "
        "limbeck export my-model/ --task text-classification --rows some.csv --to onnx -o exported  ·  "
        "limbeck export runs/mine --to '{type: onnx, precision: fp16, name: half}'  ·  "
        "limbeck export runs/mine --to onnx --for triton"
    )(export)


def export(
    where: Where,
    to: To = None,
    for_: For = None,
    output: Output = None,
    task: Task = None,
    rows: Rows = None,
    force: Force = False,
) -> None:
    """Export a student: ONNX and others, with all that is needed to ask it.

    Each export is loaded back and compared with the student on validation rows; one that says something else is
    refused, with the figures. `limbeck list exporters` tells the formats, `limbeck list deployments` the places; with
    --for alone, what the run or the folder already has is deployed.
    """
    from limbeck.core.errors import RecipeError
    from limbeck.core.yaml import parse_yaml

    if not where.is_dir():
        raise RecipeError(f"{where} is no folder", fix="the folder of a run, or of a model")
    formats = [parse_yaml(each, "--to") for each in to or []]
    places = _places(for_ or [])
    from limbeck.cli._quiet import quiet_libraries

    quiet_libraries()
    from limbeck.core.artifacts import read_manifest
    from limbeck.pipeline.api import export as make
    from limbeck.report.formats import size

    asked = None if task is None else parse_yaml(task, "--task")
    exported = []
    if formats or not places:
        for name, folder in make(where, formats, output=output, task=asked, rows=rows, force=force).items():
            exported.append(folder)
            told = read_manifest(folder)
            for note in told["notes"]:
                typer.echo(f"note: {note}", err=True)
            took = told["latency_p50"]
            typer.echo(
                f"{name}  {folder}  {''.join(size(told['bytes']))}  same answers {told['same_answers']:.1%}  largest "
                f"difference {told['max_difference']:.2g}  p50 {took['export']:.2f} ms (was {took['student']:.2f})"
            )
    if places:
        _deploy(where, places, output, exported, force)


def _places(words: list[str]) -> list[Deployment]:
    from pydantic import ValidationError

    from limbeck.core.errors import RecipeError
    from limbeck.core.parts import build
    from limbeck.core.recipe.load import lines_of
    from limbeck.core.yaml import parse_yaml

    try:
        return [cast("Deployment", build("deployment", parse_yaml(each, "--for"))) for each in words]
    except ValidationError as error:
        raise RecipeError("that is no place to deploy to:\n" + "\n".join(lines_of(error.errors()))) from None
    except ValueError as error:
        raise RecipeError("that is no place to deploy to", got=str(error)) from error


def _deploy(where: Path, places: list[Deployment], output: Path | None, exported: list[Path], force: bool) -> None:
    from limbeck.pipeline.deploy import deploy_at

    for name, made in deploy_at(where, places, output=output, exported=exported, force=force).items():
        for note in made.manifest["notes"]:
            typer.echo(f"note: {note}", err=True)
        told = made.manifest
        typer.echo(f"{name}  {made.path}  {told['model']}, {told['format']} {told['precision']}")
