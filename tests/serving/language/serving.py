"""Servers of tiny language models for the tests, in front of the engine of `upstream.py`."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from limbeck.core.errors import LimbeckError
from limbeck.runtime.card import write_card
from limbeck.serving.language.bounds import Bounds
from limbeck.serving.language.engines import Address, Engine, Start
from limbeck.serving.language.model import LanguageModel, found_in, open_model
from limbeck.serving.language.schema import RICH
from limbeck.serving.language.serve import LanguageServer
from limbeck.serving.settings import Settings
from tests.runtime.students import LANGUAGE, QWEN, student

TOKEN = "a-token-for-tests-only"
CHATML = (
    "{% for m in messages %}{{ '<' + m['role'] + '>' + m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)


def make_language(folder: Path, task: dict[str, Any] | None = None, **fields: Any) -> Path:
    """A folder with a tiny language model and its card."""
    write_card(student(folder, task or LANGUAGE, QWEN, **fields), folder)
    return folder


def opened(folder: Path, name: str = "tiny") -> LanguageModel:
    """A language model as engines get it."""
    return open_model(found_in(str(folder), name)[0], ("pytorch",))


class Upstream(Engine):
    """The engine of `upstream.py`."""

    name, module, extra = "upstream", "uvicorn", "serve"
    running = 4
    fields = RICH
    metrics = "/metrics"
    program: ClassVar[list[str]] = ["tests.serving.language.upstream"]

    def start(self, place: Path, attempt: int) -> Start:
        address = Address(socket=place / f"engine-{attempt}.sock")
        environment = {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, filter(None, sys.path)))}
        return Start(["--socket", str(address.socket), *self.program], address, environment)


class Broken(Upstream):
    """One that does not start."""

    program: ClassVar[list[str]] = ["tests.serving.language.no_such_engine"]


class Serving:
    """A server that runs in a thread.

    Attributes:
        finished: what `run` gave.
        error: what it raised.
    """

    def __init__(self, engine: Engine, settings: Settings):
        self.finished: bool | None = None
        self.error: LimbeckError | None = None
        self._ready = threading.Event()
        self.server = LanguageServer(engine, settings, ready=lambda server: self._ready.set())
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(60)
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        try:
            self.finished = self.server.run()
        except LimbeckError as error:
            self.error = error
        finally:
            self._ready.set()

    @property
    def url(self) -> str:
        """Of HTTP."""
        return f"http://127.0.0.1:{self.server.port}"

    def ended(self) -> None:
        """Wait for its end."""
        self._thread.join(30)
        assert not self._thread.is_alive()

    def stop(self) -> bool | None:
        """Drain, and say whether all was finished."""
        self.server.stop()
        self.ended()
        return self.finished


@contextmanager
def running(
    folder: Path, kind: type[Engine] = Upstream, bounds: dict[str, Any] | None = None, **settings: Any
) -> Iterator[Serving]:
    """A server of a folder, on a port that is free."""
    fields: dict[str, Any] = {"port": 0, "token": TOKEN, "linger": 0.0, **settings}
    serving = Serving(kind(opened(folder), Bounds(**(bounds or {}))), Settings(**fields))
    try:
        yield serving
    finally:
        serving.stop()
