"""The server of a language model."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

from limbeck.serving.door import Door
from limbeck.serving.language.bounds import Bounds
from limbeck.serving.language.engines import Engine, choose
from limbeck.serving.language.front import Front
from limbeck.serving.language.shapes import error_response
from limbeck.serving.language.supervisor import Supervisor
from limbeck.serving.listener import Listener
from limbeck.serving.metrics import Metrics
from limbeck.serving.settings import Settings


class LanguageServer(Listener):
    """Serves a language model until it is told to stop, or its engine cannot be kept running.

    Args:
        engine: that answers.
        settings: address, token and bounds of requests.
        ready: called once the engine can be asked for the first time.
        tell: told how the start goes on, in words.
        log: a file that gets all that the engine says. It may quote requests.

    Attributes:
        port: of HTTP, once it has started.
        supervisor: of the engine.
    """

    def __init__(
        self,
        engine: Engine,
        settings: Settings,
        *,
        ready: Callable[[LanguageServer], None] = lambda server: None,
        tell: Callable[[str], None] = lambda text: None,
        log: Path | None = None,
    ):
        super().__init__(settings)
        self.supervisor = Supervisor(engine, tell, log)
        self.front = Front(engine, self.supervisor, Metrics())
        self._ready = ready
        self._keeping: asyncio.Task[None] | None = None

    def door(self) -> Door:
        return Door(self.front, self._settings, self.front.metrics, error_response)

    async def begin(self) -> None:
        self._keeping = asyncio.create_task(self.supervisor.run(lambda: self._ready(self)))
        self._keeping.add_done_callback(lambda task: self.stop())

    def leave(self) -> None:
        self.front.leaving = True

    async def finish(self, seconds: float) -> bool:
        """End the engine.

        Raises:
            LimbeckError: it could not be started, or not be kept running.
        """
        assert self._keeping is not None
        done = not self.front.slots.running and not self.front.slots.waiting
        self._keeping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._keeping
        return done


def serve_language(
    word: str,
    settings: Settings,
    bounds: Bounds | None = None,
    *,
    engine: str = "auto",
    name: str | None = None,
    threads: int | None = None,
    ready: Callable[[LanguageServer], None] = lambda server: None,
    tell: Callable[[str], None] = lambda text: None,
    log: Path | None = None,
) -> bool:
    """Serve a language model by OpenAI's protocol until SIGTERM, SIGINT, or the end of its engine.

    Args:
        word: a run, or a student's folder, perhaps as NAME=FOLDER.
        settings: address, token and bounds of requests.
        bounds: of the engine; None: as they are by default.
        engine: vllm, sglang, genai, transformers; `auto`: the first that fits.
        name: to serve it under; None: the folder's.
        threads: of the engine; None: its own choice.
        ready: called once it can be asked.
        tell: told how the start goes on, in words.
        log: a file that gets all that the engine says. It may quote requests.

    Returns:
        Whether everything that had begun was finished.

    Raises:
        LimbeckError: there is no language model, no engine for it, or the engine does not start or stay.
        OSError: the address cannot be listened to.
    """
    chosen = choose(word, engine, bounds or Bounds(), name=name, threads=threads)
    return LanguageServer(chosen, settings, ready=ready, tell=tell, log=log).run()
