"""What replicas serve, and how many of them there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from limbeck.core.errors import RecipeError
from limbeck.serving.folders import Served, served
from limbeck.serving.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How many replicas there are, and what each takes.

    Attributes:
        replicas: how many; with `max_replicas` the fewest.
        max_replicas: the most; None: their number is fixed.
        target_requests: under way in a replica, on average, above which there are to be more of them.
        cpus: that Ray sets aside for a replica; its threads are `threads`, Ray does not hold it to them.
        gpus: that Ray sets aside for a replica.
    """

    replicas: int = 1
    max_replicas: int | None = None
    target_requests: float = 32.0
    cpus: float = 1.0
    gpus: float = 0.0

    def __post_init__(self) -> None:
        if self.replicas < 1 or (self.max_replicas is not None and self.max_replicas < self.replicas):
            got = f"{self.replicas} to {self.max_replicas}"
            raise RecipeError("there must be a replica, and at most as many as there may be", got=got)


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What every replica serves.

    Attributes:
        models: names and folders, which every machine of the cluster must see at the same place.
        engine: that runs them.
        threads: of one batch; None: the engine's own choice.
        settings: bounds and token; they go to the replicas through Ray, whose cluster must be trusted with them.
    """

    models: tuple[Served, ...]
    engine: str = "auto"
    threads: int | None = None
    settings: Settings

    def __post_init__(self) -> None:
        if self.settings.grpc_port is not None:
            raise RecipeError("gRPC is not served by Ray", fix="leave --grpc-port out")
        if self.settings.allow_load:
            what = "a replica that loads a model does not tell the others"
            raise RecipeError(what, fix="leave --allow-load out: folders that are replaced are loaded by all")


def found(words: Sequence[str], engine: str = "auto", name: str | None = None) -> tuple[Served, ...]:
    """What is to be served, by places that do not hang on where a process was started.

    Raises:
        ModelError: there is nothing to serve.
    """
    return tuple(replace(each, folder=each.folder.resolve()) for each in (served(w, engine, name) for w in words))
