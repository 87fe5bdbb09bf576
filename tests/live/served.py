"""Pages served by a thread of the tests' own process: what is imported already need not be imported anew."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from limbeck.live.server import Door, serve


@contextmanager
def served(app: Any) -> Iterator[str]:
    """The address of an application, served as the commands serve it."""
    thread = threading.Thread(target=serve, args=(app, Door()))
    thread.start()
    try:
        deadline = time.monotonic() + 60
        while app.state.server is None or not app.state.server.started:
            assert thread.is_alive()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        host, port = app.state.server.servers[0].sockets[0].getsockname()
        yield f"http://{host}:{port}/"
    finally:
        if app.state.server is not None:
            app.state.server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()
