"""`limbeck serve`: students behind HTTP and gRPC."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from limbeck.serving.metrics import Metrics
    from limbeck.serving.repository import Repository
    from limbeck.serving.server import Server
    from limbeck.serving.settings import Settings

Models = Annotated[
    list[str],
    typer.Argument(
        metavar="[NAME=]RUN|FOLDER...",
        help="A run, a student's folder, or a folder of versions 1, 2, ...",
        show_default=False,
    ),
]
Name = Annotated[
    str | None, typer.Option(help="Serve the one model under this name; left out: its folder's.", show_default=False)
]
Engine = Annotated[str, typer.Option(help="auto, torch, onnxruntime or openvino; auto: what the format is made for.")]
Threads = Annotated[
    int | None, typer.Option(min=1, help="Of one batch; left out: the engine's own choice.", show_default=False)
]
Host = Annotated[str, typer.Option(help="Address to listen to. One that others can reach needs a token.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="Of HTTP; 0: any that is free.")]
GrpcPort = Annotated[int | None, typer.Option(min=0, max=65535, help="Of gRPC; left out: no gRPC.", show_default=False)]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        help="File with the token that callers must send; left out: the variable LIMBECK_TOKEN, if it is set.",
        show_default=False,
    ),
]
BatchTokens = Annotated[int, typer.Option(min=1, help="Most tokens of a batch, padding counted.")]
BatchRows = Annotated[int, typer.Option(min=1, help="Most rows of a batch.")]
Queue = Annotated[int, typer.Option(min=1, help="Most rows that wait; more are answered with 429.")]
Deadline = Annotated[float, typer.Option(min=0.001, help="Seconds that a request may take.")]
Drain = Annotated[float, typer.Option(min=0, help="Seconds to finish in after SIGTERM.")]
Body = Annotated[float, typer.Option(min=0.001, help="Most megabytes of a request.")]
Watch = Annotated[bool, typer.Option("--watch/--no-watch", help="Load folders anew when they are replaced.")]
Cascaded = Annotated[
    bool, typer.Option("--cascade", help="Ask the larger models of the run's cascade where the student is unsure.")
]
Keep = Annotated[
    bool,
    typer.Option(
        "--feedback", help="With --cascade: keep rows on which the models disagree, in RUN/feedback. Users' texts!"
    ),
]
AllowLoad = Annotated[bool, typer.Option("--allow-load", help="Let callers load and unload these models.")]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(
        epilog="Example: limbeck serve runs/banking77  ·  limbeck serve small=runs/small large=runs/large "
        "--port 8080 --grpc-port 8081  ·  LIMBECK_TOKEN=$(openssl rand -hex 32) limbeck serve runs/banking77 "
        "--host 0.0.0.0  ·  limbeck serve runs/banking77 --cascade --feedback"
    )(serve)


def serve(
    models: Models,
    name: Name = None,
    engine: Engine = "auto",
    threads: Threads = None,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    grpc_port: GrpcPort = None,
    token_file: TokenFile = None,
    max_batch_tokens: BatchTokens = 4096,
    max_batch_rows: BatchRows = 64,
    max_queue: Queue = 1024,
    deadline: Deadline = 10.0,
    drain: Drain = 30.0,
    max_body_mb: Body = 10.0,
    watch: Watch = True,
    allow_load: AllowLoad = False,
    cascade: Cascaded = False,
    feedback: Keep = False,
) -> None:
    """Serve classifiers over HTTP and gRPC, with requests batched.

    Of a run the compressed student is served, or else its export, or else the trained one. Plain requests go to
    /predict; the Open Inference Protocol is at /v2, for tritonclient and others, and Prometheus' figures at /metrics.
    SIGTERM finishes what has begun, then leaves.
    """
    from limbeck.core.errors import RecipeError

    if name is not None and len(models) > 1:
        raise RecipeError("--name is for one model", got=f"{len(models)} models", fix="NAME=FOLDER")
    if feedback and not cascade:
        raise RecipeError("--feedback keeps what the models of a cascade disagree on", fix="add --cascade")
    if cascade and len(models) > 1:
        raise RecipeError("--cascade is for one run", got=f"{len(models)} models")
    _installed(grpc_port is not None)
    from limbeck.serving.batching import Limits
    from limbeck.serving.settings import Settings, read_token

    settings = Settings(
        host=host,
        port=port,
        grpc_port=grpc_port,
        token=read_token(token_file),
        limits=Limits(
            max_batch_tokens=max_batch_tokens, max_batch_rows=max_batch_rows, max_queue=max_queue, deadline=deadline
        ),
        max_body=int(max_body_mb * 2**20),
        drain_seconds=drain,
        watch_seconds=2.0 if watch else None,
        allow_load=allow_load,
    )
    if cascade:
        _run_cascade(models[0], name, engine, threads, settings, feedback)
    else:
        _run(models, name, engine, threads, settings)


def _run_cascade(word: str, name: str | None, engine: str, threads: int | None, settings: Settings, keep: bool) -> None:
    """A run's student with the models of its cascade behind it."""
    from limbeck.cli._quiet import quiet_libraries

    quiet_libraries()
    from functools import partial

    from limbeck.runtime.cascade import place_of, read_plan
    from limbeck.serving.cascade import CascadeModel, load_cascade, load_first
    from limbeck.serving.feedback import open_feedback
    from limbeck.serving.metrics import Metrics
    from limbeck.serving.repository import Repository

    before, equals, after = word.partition("=")
    run = Path(after if equals and not Path(word).is_dir() else word)
    plan, metrics = read_plan(run), Metrics()
    kept = open_feedback(run, metrics) if keep else None
    cascade = load_cascade(run, settings.limits, metrics, threads=threads, feedback=kept)
    try:
        repository = Repository(
            lambda folder: load_first(plan, folder, engine, threads),
            settings.limits,
            metrics,
            retire_seconds=settings.drain_seconds,
            make=partial(CascadeModel, cascade=cascade),
        )
        named = name or (before if run != Path(word) else run.resolve().name)
        repository.add(named, place_of(run, plan.members[0]))
        typer.echo(f"{named}  {' -> '.join(each.name for each in plan.members)}  below {plan.threshold:.4f}")
        _serve(repository, settings, metrics)
    finally:
        cascade.close()


def _run(models: list[str], name: str | None, engine: str, threads: int | None, settings: Settings) -> None:
    from limbeck.cli._quiet import quiet_libraries

    quiet_libraries()
    from limbeck.runtime.student import load_student
    from limbeck.serving.folders import served
    from limbeck.serving.metrics import Metrics
    from limbeck.serving.repository import Repository

    metrics = Metrics()
    repository = Repository(
        lambda folder: load_student(folder, engine, threads),
        settings.limits,
        metrics,
        retire_seconds=settings.drain_seconds,
    )
    for each in [served(word, engine, name) for word in models]:
        repository.add(each.name, each.folder)
        with repository.lease(each.name) as model:
            student = model.student
            typer.echo(f"{each.name}  {each.folder}  {student.runner.engine}, {student.card.precision}")
    _serve(repository, settings, metrics)


def _serve(repository: Repository, settings: Settings, metrics: Metrics) -> None:
    """Until it is told to stop."""
    from limbeck.serving.logs import log_json
    from limbeck.serving.server import Server

    log_json()
    server = Server(repository, settings, metrics)
    if not server.run(lambda: _tell(server, settings, repository)):
        raise typer.Exit(1)


def _tell(server: Server, settings: Settings, repository: Repository) -> None:
    """Where it is, and how it is asked."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = f"http://{host}:{server.port}"
    with repository.lease() as model:
        plain = "@picture.png" if "image" in model.roles else '\'{"text": "..."}\''
    kind = "image/png" if plain.startswith("@") else "application/json"
    token = ' -H "authorization: Bearer $LIMBECK_TOKEN"' if settings.token else ""
    typer.echo(f"http    {url}")
    if server.grpc_port is not None:
        typer.echo(f"grpc    {host}:{server.grpc_port}")
    typer.echo(f"try     curl {url}/predict{token} -H 'content-type: {kind}' --data-binary {plain}")


def _installed(grpc: bool) -> None:
    from limbeck.core.errors import MissingExtra

    wanted = ["fastapi", "uvicorn", "prometheus_client", "python_multipart"]
    for module in [*wanted, *(["grpc", "google.protobuf"] if grpc else [])]:
        try:
            found = importlib.util.find_spec(module)
        except ModuleNotFoundError:
            found = None
        if found is None:
            raise MissingExtra(f"limbeck serve ({module})", "serve")
