"""The first thing in an engine's process: it dies with the server, and may listen where nobody else can come.

    python -m limbeck.serving.language.launch [--socket FILE] MODULE [WORD...]

Standard input is a pipe that the server holds: at its end, however that came, the whole process group is killed.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
from collections.abc import Sequence
from typing import Any


def launch(words: Sequence[str]) -> None:
    """Run a module as `python -m` does, once it is seen to that it does not outlive the server.

    Args:
        words: as above.
    """
    threading.Thread(target=_follow, args=(sys.stdin.fileno(),), daemon=True).start()
    rest = list(words)
    if rest[0] == "--socket":
        _listen_at(rest[1])
        rest = rest[2:]
    sys.argv = rest
    runpy.run_module(rest[0], run_name="__main__", alter_sys=True)


def _follow(pipe: int) -> None:
    """Wait for the end of the pipe, and end with it."""
    while os.read(pipe, 4096):
        pass
    os.killpg(os.getpgrp(), signal.SIGKILL)


def _listen_at(path: str) -> None:
    """Let a server that knows hosts and ports only listen at a socket file.

    A port of this machine is open to all of its users, and `transformers serve` asks for no token.
    """
    import uvicorn

    class Config(uvicorn.Config):
        """uvicorn's, for one socket file."""

        def __init__(self, app: Any, **options: Any):
            options = {name: value for name, value in options.items() if name not in ("host", "port")}
            super().__init__(app, **{**options, "uds": path, "access_log": False})

    setattr(uvicorn, "Config", Config)  # noqa: B010, for type checkers


if __name__ == "__main__":
    launch(sys.argv[1:])
