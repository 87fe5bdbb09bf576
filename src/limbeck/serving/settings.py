"""What a server is started with."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass, field
from pathlib import Path

from limbeck.core.errors import RecipeError
from limbeck.serving.batching import Limits

TOKEN = "LIMBECK_TOKEN"
"""The environment variable that holds the token, where no file does."""
_SHORTEST_TOKEN = 16


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A server's address, its token and its bounds.

    Attributes:
        host: an address of this machine.
        port: of HTTP; 0: any that is free.
        grpc_port: of gRPC; 0: any that is free; None: no gRPC.
        token: that callers must send; None: nobody has to.
        limits: of every engine.
        max_body: bytes of a request.
        max_bodies: bytes of all requests that are held at a time.
        max_requests: that are under way at a time.
        max_connections: that are open at a time.
        body_seconds: that a caller may take to send a request.
        drain_seconds: to finish in, after SIGTERM.
        linger: seconds after SIGTERM in which callers are still answered, though the server says it is not ready.
        watch_seconds: between looks at the folders; None: none are taken.
        allow_load: whether callers may load and unload models.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    grpc_port: int | None = None
    token: str | None = field(default=None, repr=False)
    limits: Limits = field(default_factory=Limits)
    max_body: int = 10 * 2**20
    max_bodies: int = 256 * 2**20
    max_requests: int = 2048
    max_connections: int = 4096
    body_seconds: float = 10.0
    drain_seconds: float = 30.0
    linger: float = 0.5
    watch_seconds: float | None = 2.0
    allow_load: bool = False

    def __post_init__(self) -> None:
        if self.token is None and not is_loopback(self.host):
            raise RecipeError(
                "a server that others can reach needs a token",
                got=f"--host {self.host}",
                fix=f"set {TOKEN} or --token-file, or leave --host out",
            )

    @property
    def place(self) -> str:
        """The host as it stands in an address."""
        return f"[{self.host}]" if ":" in self.host else self.host


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_token(file: Path | None) -> str | None:
    """The token, from a file or else from the environment; None where neither has one.

    Raises:
        RecipeError: it is too short, or holds what no header can.
    """
    text = os.environ.get(TOKEN) if file is None else file.read_text(encoding="utf-8").strip()
    if text is None:
        return None
    where = TOKEN if file is None else str(file)
    if len(text) < _SHORTEST_TOKEN or not text.isascii() or not text.isprintable() or " " in text:
        raise RecipeError(
            f"the token in {where} is no token",
            allowed=f"{_SHORTEST_TOKEN} or more letters, digits and signs",
            fix="openssl rand -hex 32",
        )
    return text
