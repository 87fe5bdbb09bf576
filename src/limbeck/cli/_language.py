"""What `limbeck serve` starts for a language model; the modules it imports are heavy."""

from __future__ import annotations

from pathlib import Path

import typer

from limbeck.serving.language.bounds import Bounds
from limbeck.serving.language.serve import LanguageServer, serve_language
from limbeck.serving.logs import log_json
from limbeck.serving.settings import Settings


def serve_language_model(
    word: str, name: str | None, engine: str, threads: int | None, settings: Settings, bounds: Bounds, log: Path | None
) -> None:
    """Serve a language model by OpenAI's protocol."""
    log_json()

    def ready(server: LanguageServer) -> None:
        _tell(server, settings)

    if not serve_language(
        word, settings, bounds, engine=engine, name=name, threads=threads, ready=ready, tell=typer.echo, log=log
    ):
        raise typer.Exit(1)


def bounds(*, max_queue: int | None, deadline: float | None, **others: int | None) -> Bounds:
    """Bounds of the engine; what is None is as it is by default."""
    given = {"max_queue": max_queue, "deadline": deadline, **others}
    return Bounds(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]


def _tell(server: LanguageServer, settings: Settings) -> None:
    """Where it is, and how it is asked."""
    engine, model = server.front.engine, server.front.engine.model
    url = f"http://{settings.place}:{server.port}/v1"
    token = ' -H "authorization: Bearer $LIMBECK_TOKEN"' if settings.token else ""
    asked = f'{{"model": "{model.name}", "messages": [{{"role": "user", "content": "..."}}]}}'
    typer.echo(f"{model.name}  {model.folder}  {engine.name}, {model.card.precision}")
    typer.echo(f"openai  {url}")
    typer.echo(f"try     curl {url}/chat/completions{token} -H 'content-type: application/json' -d '{asked}'")
