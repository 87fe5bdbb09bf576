"""The server as a Ray Serve application: replicas, each with its own engine, behind Ray's proxies.

A replica holds what `limbeck serve` holds: the models, their engines, and the same HTTP application behind the same
door. Ray starts replicas, routes requests to the one that has the fewest, and starts another where one is lost.

    serve run limbeck.serving.scale.ray_app:app models=runs/banking77 replicas=4
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import ray
from pydantic import BaseModel, ConfigDict, Field
from ray import serve
from starlette.types import ASGIApp, Receive, Scope, Send

from limbeck.core.errors import RecipeError
from limbeck.runtime.student import load_student
from limbeck.serving.http import create_app
from limbeck.serving.logs import log_json
from limbeck.serving.repository import Repository
from limbeck.serving.scale.figures import Board, SharedMetrics
from limbeck.serving.scale.spec import Scale, Spec, found
from limbeck.serving.settings import TOKEN, Settings, read_token

NAME = "limbeck"
"""Of the application, of its deployment, and the namespace of its board."""
_BOARD = "figures"
_PATIENCE = 5.0
"""Seconds that an exchange of figures may take."""


class Standing:
    """One replica's server: an ASGI application that loads its models when it is made.

    Args:
        spec: what it serves.
        metrics: told of all.

    Attributes:
        repository: of its models.
    """

    def __init__(self, spec: Spec, metrics: SharedMetrics):
        settings = spec.settings
        self._metrics, self._seconds = metrics, settings.drain_seconds
        self.repository = Repository(
            lambda folder: load_student(folder, spec.engine, spec.threads),
            settings.limits,
            metrics,
            retire_seconds=settings.drain_seconds,
        )
        for each in spec.models:
            self.repository.add(each.name, each.folder)
        if settings.watch_seconds is not None:
            self.repository.watch(settings.watch_seconds)
        self._door = create_app(self.repository, settings, metrics)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; finish everything when Ray takes the replica down."""
        if scope["type"] != "lifespan":
            await self._door(scope, receive, send)
            return
        while True:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                await asyncio.to_thread(self.repository.drain, self._seconds)
                self._metrics.close()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return

    def check(self) -> None:
        """Make sure that every model is served.

        Raises:
            RuntimeError: one is not, so that Ray starts another replica.
        """
        if not self.repository.ready:
            raise RuntimeError("a model is not served any more")


class Replica:
    """What Ray asks of a replica beside HTTP."""

    app: Standing

    def check_health(self) -> None:
        """Called by Ray from time to time.

        Raises:
            RuntimeError: this replica is to be replaced.
        """
        self.app.check()


def application(spec: Spec, scale: Scale) -> serve.Application:
    """The application as `serve.run` takes it.

    Args:
        spec: what every replica serves.
        scale: how many there are.
    """
    settings = spec.settings
    count: dict[str, Any] = {"num_replicas": scale.replicas}
    if scale.max_replicas is not None:
        count = {
            "autoscaling_config": {
                "min_replicas": scale.replicas,
                "max_replicas": scale.max_replicas,
                "target_ongoing_requests": scale.target_requests,
            }
        }
    made = serve.deployment(
        serve.ingress(_builder(spec))(Replica),
        name=NAME,
        ray_actor_options={"num_cpus": scale.cpus, "num_gpus": scale.gpus},
        # Ray's own is 5, of which no batch could be made; what a replica cannot take on, it refuses itself with 429.
        max_ongoing_requests=settings.max_requests,
        max_queued_requests=settings.max_requests,
        graceful_shutdown_timeout_s=settings.drain_seconds,
        graceful_shutdown_wait_loop_s=0.5,
        health_check_period_s=2.0,
        health_check_timeout_s=20.0,
        logging_config={"enable_access_log": False},
        **count,
    )
    return made.bind()


class Arguments(BaseModel):
    """What `serve run`, `serve deploy` and KubeRay's RayService may say of the application."""

    model_config = ConfigDict(extra="forbid")

    models: str | list[str]
    """`[NAME=]RUN|FOLDER`; several are separated by commas."""
    engine: Literal["auto", "torch", "onnxruntime", "openvino"] = "auto"
    threads: int | None = Field(default=None, ge=1)
    replicas: int = Field(default=1, ge=1)
    max_replicas: int | None = Field(default=None, ge=1)
    cpus: float = Field(default=1.0, ge=0)
    gpus: float = Field(default=0.0, ge=0)
    token_file: Path | None = None
    """Left out: the variable LIMBECK_TOKEN, where the application is built."""


def app(arguments: Mapping[str, Any]) -> serve.Application:
    """The application for Ray's own command line and configuration files.

    Args:
        arguments: as they are written there; those of `Arguments`.

    Raises:
        ValidationError: they are others.
        LimbeckError: there is nothing to serve, or no token.
    """
    told = Arguments.model_validate(arguments)
    token = read_token(told.token_file)
    if token is None:
        what = "Ray's own tools serve to all of the network: the application needs a token"
        raise RecipeError(what, fix=f"token_file=FILE, or set {TOKEN} where it is built")
    words = told.models.split(",") if isinstance(told.models, str) else told.models
    spec = Spec(
        models=found(words, told.engine),
        engine=told.engine,
        threads=told.threads,
        settings=Settings(token=token),
    )
    scale = Scale(replicas=told.replicas, max_replicas=told.max_replicas, cpus=told.cpus, gpus=told.gpus)
    return application(spec, scale)


def _builder(spec: Spec) -> Callable[[], ASGIApp]:
    """Ray calls it in every replica."""

    def build() -> ASGIApp:
        log_json()
        name = serve.get_replica_context().replica_id.unique_id
        return Standing(spec, SharedMetrics(name, _Exchange()))

    return build


class _Exchange:
    """Of figures, over an actor of Ray's, which ends with the replica that made it: then another makes one."""

    def __init__(self) -> None:
        self._board: Any = None  # held on to: Ray ends an actor that its maker has let go

    def __call__(self, name: str, text: str) -> Mapping[str, str]:
        if self._board is None:
            options = {"name": _BOARD, "namespace": NAME, "get_if_exists": True, "num_cpus": 0}
            self._board = ray.remote(Board).options(**options).remote()
        try:
            told: Mapping[str, str] = ray.get(self._board.put.remote(name, text), timeout=_PATIENCE)
        except Exception:
            self._board = None
            raise
        return told
