"""The command line: one thin file per command; nothing heavy is imported until a command runs."""

from __future__ import annotations

import sys

import typer

from limbeck._version import __version__
from limbeck.cli import (
    _quiet,
    cache,
    cascade,
    compare,
    compress,
    doctor,
    evaluate,
    export,
    gallery,
    generate,
    init,
    layers,
    list,
    optimize,
    play,
    run,
    schema,
    serve,
    tune,
    watch,
)

app = typer.Typer(
    name="limbeck",
    help="From a large teacher to a small, evaluated student: one recipe, one command.",
    epilog="Start with: limbeck init image-classification > mine.yaml && limbeck run mine.yaml",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
for _command in (
    run,
    watch,
    play,
    generate,
    cache,
    tune,
    evaluate,
    compress,
    cascade,
    optimize,
    export,
    serve,
    compare,
    doctor,
    gallery,
    init,
    list,
    layers,
    schema,
):
    _command.register(app)


@app.callback(invoke_without_command=True)
def _main(version: bool = typer.Option(False, "--version", help="Print the version and leave.", is_eager=True)) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit
    _quiet.quiet_imports()


def main() -> None:
    """Run the command line; errors that a user can mend are one message and status 1."""
    from limbeck.core.errors import LimbeckError

    try:
        app()
    except LimbeckError as error:
        typer.secho(f"error: {error}", err=True, fg="red")
        sys.exit(1)
    except OSError as error:
        typer.secho(f"error: {error.strerror or error}: {error.filename or ''}", err=True, fg="red")
        sys.exit(1)
