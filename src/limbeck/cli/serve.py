"""`limbeck serve`: students behind HTTP and gRPC."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
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
Engine = Annotated[
    str,
    typer.Option(
        help="auto, torch, onnxruntime or openvino; of language models vllm, sglang, genai or transformers. "
        "auto: what the format is made for."
    ),
]
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
Queue = Annotated[
    int | None,
    typer.Option(
        min=1, help="Most rows that wait, of a language model requests; more are answered with 429. [default: 1024; 64]"
    ),
]
Deadline = Annotated[
    float | None,
    typer.Option(min=0.001, help="Seconds that a request may take. [default: 10; of a language model 600]"),
]
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
Running = Annotated[
    int | None,
    typer.Option(min=1, help="Of a language model: answers that are written at a time; left out: the engine's choice."),
]
Context = Annotated[
    int | None,
    typer.Option(min=2, help="Of a language model: tokens of prompt and answer together; left out: its positions."),
]
EngineLog = Annotated[
    Path | None,
    typer.Option(help="Of a language model: a file for all that its engine says. It may quote requests!"),
]
OnRay = Annotated[bool, typer.Option("--ray", help="Serve on Ray: replicas behind one address.")]
Replicas = Annotated[int, typer.Option(min=1, help="With --ray: how many; with --max-replicas, the fewest.")]
MaxReplicas = Annotated[
    int | None, typer.Option(min=1, help="With --ray: the most; left out: always the same.", show_default=False)
]
AllowLoad = Annotated[bool, typer.Option("--allow-load", help="Let callers load and unload these models.")]
_OF_CLASSIFIERS = (
    *("grpc_port", "max_batch_tokens", "max_batch_rows", "watch", "cascade", "feedback", "allow_load"),
    *("ray", "replicas", "max_replicas"),
)
_OF_LANGUAGE = ("max_running", "context", "engine_log")


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(
        epilog="Example: limbeck serve runs/banking77  ·  limbeck serve small=runs/small large=runs/large "
        "--port 8080 --grpc-port 8081  ·  LIMBECK_TOKEN=$(openssl rand -hex 32) limbeck serve runs/banking77 "
        "--host 0.0.0.0  ·  limbeck serve runs/banking77 --cascade --feedback  ·  "
        "limbeck serve runs/reasoning --port 8001"
    )(serve)


def serve(
    ctx: typer.Context,
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
    max_queue: Queue = None,
    deadline: Deadline = None,
    drain: Drain = 30.0,
    max_body_mb: Body = 10.0,
    watch: Watch = True,
    allow_load: AllowLoad = False,
    cascade: Cascaded = False,
    feedback: Keep = False,
    ray: OnRay = False,
    replicas: Replicas = 1,
    max_replicas: MaxReplicas = None,
    max_running: Running = None,
    context: Context = None,
    engine_log: EngineLog = None,
) -> None:
    """Serve classifiers over HTTP and gRPC, with requests batched; a language model by OpenAI's protocol.

    Of a run the compressed student is served, or else its export, or else the trained one. Plain requests go to
    /predict; the Open Inference Protocol is at /v2, for tritonclient and others, and Prometheus' figures at /metrics.
    A language model answers at /v1, for the openai package and others. SIGTERM finishes what has begun, then leaves.
    """
    from limbeck.cli._quiet import quiet_libraries

    _installed(grpc_port is not None, ray)
    quiet_libraries()
    speaks = _checked(ctx, models, name)
    settings = _settings(**ctx.params)
    if speaks:
        from limbeck.cli._language import bounds, serve_language_model

        places = bounds(running=max_running, max_queue=max_queue, deadline=deadline, context=context)
        serve_language_model(models[0], name, engine, threads, settings, places, engine_log)
        return
    from limbeck.cli._serving import serve_cascade, serve_models, serve_on_ray

    if ray:
        serve_on_ray(models, name, engine, threads or 1, settings, replicas, max_replicas)
    elif cascade:
        serve_cascade(models[0], name, engine, threads, settings, feedback)
    else:
        serve_models(models, name, engine, threads, settings)


def _checked(ctx: typer.Context, models: list[str], name: str | None) -> bool:
    """Refuse options that do not go together, or would be passed over in silence; whether it is a language model."""
    from limbeck.core.errors import RecipeError
    from limbeck.serving.language.model import is_language_model

    speaks, cascade, ray = any(map(is_language_model, models)), ctx.params["cascade"], ctx.params["ray"]
    if name is not None and len(models) > 1:
        raise RecipeError("--name is for one model", got=f"{len(models)} models", fix="NAME=FOLDER")
    if (cascade or speaks) and len(models) > 1:
        alone = "--cascade is for one run" if cascade else "a language model is served by itself"
        raise RecipeError(alone, got=f"{len(models)} models")
    if ray and cascade:
        raise RecipeError("a cascade is not served on Ray", fix="leave --ray or --cascade out")
    leave = "leave it out"
    idle: list[tuple[str, tuple[str, ...], str]] = []
    idle += [("a language model", _OF_CLASSIFIERS, leave)] if speaks else [("a classifier", _OF_LANGUAGE, leave)]
    idle += [] if cascade else [("a server without a cascade", ("feedback",), "add --cascade")]
    idle += [] if ray else [("a server that is not on Ray", ("replicas", "max_replicas"), "add --ray")]
    for kind, options, fix in idle:
        for option in options:
            source = ctx.get_parameter_source(option)
            if source is not None and source.name == "COMMANDLINE":
                raise RecipeError(f"--{option.replace('_', '-')} means nothing for {kind}", fix=fix)
    return speaks


def _settings(
    *,
    token_file: Path | None,
    max_batch_tokens: int,
    max_batch_rows: int,
    max_queue: int | None,
    deadline: float | None,
    max_body_mb: float,
    watch: bool,
    drain: float,
    host: str,
    port: int,
    grpc_port: int | None,
    allow_load: bool,
    **others: Any,
) -> Settings:
    """The options of a server, by their names."""
    from limbeck.serving.batching import Limits
    from limbeck.serving.settings import Settings, read_token

    return Settings(
        host=host,
        port=port,
        grpc_port=grpc_port,
        token=read_token(token_file),
        limits=Limits(
            max_batch_tokens=max_batch_tokens,
            max_batch_rows=max_batch_rows,
            max_queue=max_queue or Limits.max_queue,
            deadline=deadline or Limits.deadline,
        ),
        max_body=int(max_body_mb * 2**20),
        drain_seconds=drain,
        watch_seconds=2.0 if watch else None,
        allow_load=allow_load,
    )


def _installed(grpc: bool, ray: bool) -> None:
    from limbeck.core.errors import MissingExtra

    wanted = ["fastapi", "uvicorn", "prometheus_client", "python_multipart", "httpx"]
    for module in [*wanted, *(["grpc", "google.protobuf"] if grpc else [])]:
        try:
            found = importlib.util.find_spec(module)
        except ModuleNotFoundError:
            found = None
        if found is None:
            raise MissingExtra(f"limbeck serve ({module})", "serve")
    if ray and importlib.util.find_spec("ray") is None:
        raise MissingExtra("limbeck serve --ray", "ray")
