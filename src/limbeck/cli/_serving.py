"""What `limbeck serve` starts, once its options are read; the modules it imports are heavy."""

from __future__ import annotations

from functools import partial

import typer

from limbeck.runtime.cascade import place_of, read_plan
from limbeck.runtime.student import load_student
from limbeck.serving.cascade import CascadeModel, load_cascade, load_first
from limbeck.serving.feedback import open_feedback
from limbeck.serving.folders import named, served
from limbeck.serving.logs import log_json
from limbeck.serving.metrics import Metrics
from limbeck.serving.repository import Repository
from limbeck.serving.server import Server
from limbeck.serving.settings import Settings


def serve_cascade(
    word: str, name: str | None, engine: str, threads: int | None, settings: Settings, keep: bool
) -> None:
    """Serve a run's student with the models of its cascade behind it."""
    called, run = named(word, name)
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
        repository.add(called, place_of(run, plan.members[0]))
        typer.echo(f"{called}  {' -> '.join(each.name for each in plan.members)}  below {plan.threshold:.4f}")
        _serve(repository, settings, metrics)
    finally:
        cascade.close()


def serve_models(models: list[str], name: str | None, engine: str, threads: int | None, settings: Settings) -> None:
    """Serve students as they are."""
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


def serve_on_ray(
    models: list[str],
    name: str | None,
    engine: str,
    threads: int,
    settings: Settings,
    replicas: int,
    max_replicas: int | None,
) -> None:
    """Serve students in replicas that Ray starts."""
    from limbeck.serving.scale.ray_server import RayServer  # wants ray
    from limbeck.serving.scale.spec import Scale, Spec, found

    spec = Spec(models=found(models, engine, name), engine=engine, threads=threads, settings=settings)
    for each in spec.models:
        typer.echo(f"{each.name}  {each.folder}")
    server = RayServer(spec, Scale(replicas=replicas, max_replicas=max_replicas, cpus=float(threads)))
    server.run(lambda: typer.echo(f"http    http://{settings.place}:{server.port}"))


def _serve(repository: Repository, settings: Settings, metrics: Metrics) -> None:
    """Until it is told to stop."""
    log_json()
    server = Server(repository, settings, metrics)
    if not server.run(lambda: _tell(server, settings, repository)):
        raise typer.Exit(1)


def _tell(server: Server, settings: Settings, repository: Repository) -> None:
    """Where it is, and how it is asked."""
    url = f"http://{settings.place}:{server.port}"
    with repository.lease() as model:
        plain = "@picture.png" if "image" in model.roles else '\'{"text": "..."}\''
    kind = "image/png" if plain.startswith("@") else "application/json"
    token = ' -H "authorization: Bearer $LIMBECK_TOKEN"' if settings.token else ""
    typer.echo(f"http    {url}")
    if server.grpc_port is not None:
        typer.echo(f"grpc    {settings.place}:{server.grpc_port}")
    typer.echo(f"try     curl {url}/predict{token} -H 'content-type: {kind}' --data-binary {plain}")
