"""The server of classifiers: both protocols in one loop, from the first request to the last."""

from __future__ import annotations

import asyncio

from limbeck.serving.door import Door
from limbeck.serving.grpc_server import GrpcServer
from limbeck.serving.http import create_app
from limbeck.serving.listener import Listener
from limbeck.serving.metrics import Metrics
from limbeck.serving.repository import Repository
from limbeck.serving.settings import Settings


class Server(Listener):
    """Serves a repository until it is told to stop.

    Args:
        repository: of the models, loaded.
        settings: address, token and bounds.
        metrics: told of everything.

    Attributes:
        port: of HTTP, once it has started.
        grpc_port: of gRPC; None where it is not asked for.
    """

    def __init__(self, repository: Repository, settings: Settings, metrics: Metrics):
        super().__init__(settings)
        self._repository, self._metrics = repository, metrics
        self.grpc_port = settings.grpc_port
        self._grpc: GrpcServer | None = None

    def door(self) -> Door:
        return create_app(self._repository, self._settings, self._metrics)

    async def begin(self) -> None:
        if self._settings.grpc_port is not None:
            self._grpc = GrpcServer(self._repository, self._settings, self._metrics)
            await self._grpc.start()
            self.grpc_port = self._grpc.port
        if self._settings.watch_seconds is not None:
            self._repository.watch(self._settings.watch_seconds)

    def leave(self) -> None:
        self._repository.leave()

    async def close(self, seconds: float) -> None:
        if self._grpc is not None:
            await self._grpc.stop(seconds)

    async def finish(self, seconds: float) -> bool:
        return await asyncio.to_thread(self._repository.drain, seconds)
