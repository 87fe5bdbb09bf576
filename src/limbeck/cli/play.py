"""`limbeck play`: a run's models side by side in the browser, on the user's own input."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

PORT, BUDGET_TOKENS = 8643, 20_000

Others = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        metavar="NAME=WHERE",
        help="Ask this one too: a folder (a model, an artifact, a run), a hub name, or https://HOST/v1#MODEL.",
        show_default=False,
    ),
]
Host = Annotated[str, typer.Option(help="Address to serve on; another than this machine's wants a token.")]
Token = Annotated[
    str | None, typer.Option(help="What a visitor must show; better put into LIMBECK_TOKEN.", show_default=False)
]
Language = Annotated[
    str | None, typer.Option(help="en or zh; left out: that of the recipe's report.", show_default=False)
]
Key = Annotated[
    str | None,
    typer.Option(
        "--api-key-env",
        metavar="VARIABLE",
        help="The environment variable with the key of addresses given by --model.",
        show_default=False,
    ),
]
Tokens = Annotated[
    int, typer.Option(min=1, help="Most tokens, read and written, of each model behind an address, ever.")
]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(
        epilog="Example: limbeck play runs/quickstart  ·  limbeck play runs/mine --model earlier=runs/earlier --port 0"
    )(play)


def play(
    run: Annotated[Path, typer.Argument(help="The folder of a run.", show_default=False)],
    model: Others = None,
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to serve on; 0 takes a free one.")] = PORT,
    token: Token = None,
    language: Language = None,
    api_key_env: Key = None,
    budget_tokens: Tokens = BUDGET_TOKENS,
) -> None:
    """Ask a run's teacher, student and baseline side by side, in the browser.

    Answers, how sure they are, and how long they took; texts are shown while they are written. The page is served to
    this machine alone, and nothing that is asked is kept. A teacher behind an address is asked only where the page is
    told to, within the budget.
    """
    from limbeck.cli.evaluate import pairs
    from limbeck.core.errors import RecipeError
    from limbeck.report.words import LANGUAGES

    if language is not None and language not in LANGUAGES:
        raise RecipeError("the page is not written in that language", got=language, allowed=", ".join(LANGUAGES))
    others = pairs(model or [], "--model")
    if api_key_env is not None and not any(where.startswith("http") for where in others.values()):
        raise RecipeError("--api-key-env would have no effect", fix="--model NAME=https://HOST/v1#MODEL")
    from limbeck.live.server import Door, bound, serve

    door = Door.checked(host, port, token)  # before libraries and models, so that a mistake is told at once
    bound(door).close()
    from limbeck.cli._quiet import quiet_libraries

    quiet_libraries()
    from limbeck.live.desk import Desk
    from limbeck.live.opened import Opened
    from limbeck.live.play import play_app

    opened = Opened(run, others, api_key=api_key_env, budget_tokens=budget_tokens)
    opened.warm()
    desk = Desk()
    serve(play_app(opened, door, desk, language=language), door)
    desk.close()
