"""`limbeck watch`: a run while it goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

PORT = 8642


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(epilog="Example: limbeck watch runs/quickstart; limbeck watch runs/quickstart --terminal")(watch)


def watch(
    run: Annotated[Path, typer.Argument(help="The folder of a run.", show_default=False)],
    terminal: Annotated[bool, typer.Option("--terminal", help="Show it on the terminal, not in the browser.")] = False,
    once: Annotated[bool, typer.Option("--once", help="Print how it stands now, and leave.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --once, for programs.")] = False,
    host: Annotated[str, typer.Option(help="The address that the page is served at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Its port; 0 takes a free one.")] = PORT,
    token: Annotated[
        str | None,
        typer.Option(help="What visitors must show; left out: the variable LIMBECK_TOKEN.", show_default=False),
    ] = None,
) -> None:
    """Watch a run in the browser: steps, curves, speed, memory, time left, and what the student answers.

    The page reads the folder of the run alone, which may be at work, stopped or finished; nothing in it is changed.
    """
    from limbeck.live.folder import Folder

    folder = Folder(run)
    if terminal or once or as_json:
        from rich.console import Console

        from limbeck.live import terminal as shown

        console = Console(highlight=False)
        if as_json:
            typer.echo(shown.as_json(folder.state()))
        elif once:
            console.print(shown.view(folder.state()))
        else:
            shown.watch_terminal(folder, console)
        return
    from limbeck.live.server import Door, serve  # first: it says what to install

    door = Door.checked(host, port, token)
    from limbeck.live.watch import watch_app

    serve(watch_app(folder, door), door)
