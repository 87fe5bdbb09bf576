"""Servers of tiny students for the tests."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from limbeck.runtime import Arrays, Runner
from limbeck.runtime.student import ServedStudent, load_student
from limbeck.serving.batching import Limits
from limbeck.serving.metrics import Metrics
from limbeck.serving.repository import Repository
from limbeck.serving.server import Server
from limbeck.serving.settings import Settings
from tests.runtime.students import BERT, LABELS, PICTURE, RESNET, TEXT, student

TOKEN = "a-token-for-tests-only"
__all__ = ["LABELS", "TOKEN", "Serving", "Slow", "make_picture", "make_text", "repository", "running"]


def make_text(folder: Path, **fields: Any) -> Path:
    """A folder with a tiny text classifier."""
    student(folder, TEXT, BERT, **fields)
    return folder


def make_picture(folder: Path, **fields: Any) -> Path:
    """A folder with a tiny image classifier."""
    student(folder, PICTURE, RESNET, **fields)
    return folder


class Slow(Runner):
    """A runner that waits at a gate, and fails on a token that is told to be poison."""

    def __init__(self, inner: Runner, poison: int | None = None):
        self.inner, self.engine, self.inputs, self.outputs = inner, inner.engine, inner.inputs, inner.outputs
        self.poison = poison
        self.gate, self.entered = threading.Event(), threading.Event()
        self.gate.set()
        self.batches: list[int] = []

    def run(self, inputs: Arrays) -> dict[str, NDArray[np.generic]]:
        self.entered.set()
        assert self.gate.wait(20)
        first = next(iter(inputs.values()))
        self.batches.append(len(first))
        if self.poison is not None and (first == self.poison).any():
            raise RuntimeError("a poisoned row: a secret of the payload")
        return self.inner.run(inputs)


@contextmanager
def repository(folders: Mapping[str, Path], metrics: Metrics | None = None, **limits: Any) -> Iterator[Repository]:
    """Models by name, as a server has them."""
    made = Repository(load, Limits(**limits), metrics or Metrics(), retire_seconds=5)
    try:
        for name, folder in folders.items():
            made.add(name, folder)
        yield made
    finally:
        made.drain(2)


def load(folder: Path) -> ServedStudent:
    """A student whose runner can be held."""
    found = load_student(folder)
    found.runner = Slow(found.runner)
    return found


class Serving:
    """A server that runs in a thread."""

    def __init__(self, models: Repository, settings: Settings, metrics: Metrics):
        self.models, self.settings, self.metrics = models, settings, metrics
        self.server = Server(models, settings, metrics)
        self.finished: bool | None = None
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._started.wait(20)

    def _run(self) -> None:
        self.finished = self.server.run(self._started.set)

    @property
    def url(self) -> str:
        """Of HTTP."""
        return f"http://127.0.0.1:{self.server.port}"

    @property
    def grpc(self) -> str:
        """Host and port of gRPC."""
        return f"127.0.0.1:{self.server.grpc_port}"

    def runner(self, name: str | None = None) -> Slow:
        """The runner of a model."""
        with self.models.lease(name) as model:
            assert isinstance(model.student.runner, Slow)
            return model.student.runner

    def connect(self) -> socket.socket:
        """A plain connection."""
        return socket.create_connection(("127.0.0.1", self.server.port), timeout=10)

    def stop(self) -> bool | None:
        """Drain, and say whether all was finished."""
        self.server.stop()
        self._thread.join(30)
        assert not self._thread.is_alive()
        return self.finished


@contextmanager
def running(folders: Mapping[str, Path], limits: Mapping[str, Any] | None = None, **settings: Any) -> Iterator[Serving]:
    """A server of models, with gRPC, on ports that are free."""
    fields: dict[str, Any] = {"port": 0, "grpc_port": 0, "token": TOKEN, "linger": 0.0, "watch_seconds": None}
    metrics = Metrics()
    bounds = Limits(**(limits or {}))
    with repository(folders, metrics, **(limits or {})) as models:
        serving = Serving(models, Settings(**fields | {"limits": bounds} | settings), metrics)
        try:
            yield serving
        finally:
            serving.stop()
