"""`limbeck serve --ray`: a Ray Serve application from the first request to the last."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator

import ray
from ray import serve
from ray.serve.config import HTTPOptions

from limbeck.core.errors import RecipeError
from limbeck.serving.scale.ray_app import NAME, application
from limbeck.serving.scale.spec import Scale, Spec

_SPARE = 5.0
"""Seconds that Ray's proxy waits beyond the deadline, so that the replica's own answer comes first."""
_KEEP_ALIVE = 15


class RayServer:
    """Serves an application on Ray until it is told to stop.

    The cluster is the one that RAY_ADDRESS names; without it, one of this machine alone is started. Ray opens ports of
    its own to the network, behind a token of its own.

    Args:
        spec: what every replica serves.
        scale: how many there are.

    Attributes:
        port: of HTTP, once it has started.
    """

    def __init__(self, spec: Spec, scale: Scale):
        self._spec, self._scale = spec, scale
        self.port = spec.settings.port
        self._stopped = threading.Event()

    def run(self, started: Callable[[], None] = lambda: None) -> None:
        """Serve until SIGTERM, SIGINT or `stop`; then finish what has begun.

        Args:
            started: called once every replica takes requests.

        Raises:
            RecipeError: this machine has fewer processors than the replicas want.
            RuntimeError: Ray cannot start the replicas.
        """
        settings = self._spec.settings
        self.port = settings.port or _free(settings.host)
        with _cluster(self._scale), self._signals():
            options = HTTPOptions(
                host=settings.host,
                port=self.port,
                request_timeout_s=settings.limits.deadline + settings.body_seconds + _SPARE,
                keep_alive_timeout_s=_KEEP_ALIVE,
            )
            serve.start(proxy_location="EveryNode", http_options=options)
            try:
                serve.run(application(self._spec, self._scale), name=NAME, route_prefix="/")
                started()
                self._stopped.wait()
            finally:
                serve.delete(NAME)

    def stop(self) -> None:
        """Begin to drain; from any thread."""
        self._stopped.set()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        before = {}
        with contextlib.suppress(ValueError):  # not the main thread
            for each in (signal.SIGTERM, signal.SIGINT):
                before[each] = signal.signal(each, lambda *_: self.stop())
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)


@contextlib.contextmanager
def _cluster(scale: Scale) -> Iterator[None]:
    address = os.environ.get("RAY_ADDRESS")
    if address is None:
        _check_room(scale)
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would tell its makers
        os.environ.setdefault("RAY_worker_niceness", "0")  # its own is for work that can wait
        ray.init("local", include_dashboard=False, log_to_driver=False)
    else:
        ray.init(address, log_to_driver=False)
    try:
        yield
    finally:
        ray.shutdown()


def _check_room(scale: Scale) -> None:
    """Ray would wait for more processors for ever."""
    wanted, there = scale.replicas * scale.cpus, os.cpu_count() or 1
    if wanted > there:
        raise RecipeError(
            "this machine has fewer processors than the replicas want",
            got=f"{scale.replicas} replicas with {scale.cpus:g} each, of {there}",
            fix="fewer replicas or threads, or RAY_ADDRESS of a larger cluster",
        )


def _free(host: str) -> int:
    """A port that nobody listens to; Ray takes none but by its number."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port
