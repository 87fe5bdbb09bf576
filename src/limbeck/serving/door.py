"""What every HTTP request passes: request id, token, bounds of number, size and time; log and metrics on the way out.

It stands in front of the application, so that what it refuses costs next to nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import itertools
import logging
import re
import time
from collections.abc import Awaitable, Callable
from functools import lru_cache
from urllib.parse import urlsplit
from uuid import uuid4

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from limbeck.serving.errors import BadRequest, Draining, Forbidden, Overloaded, ServingError, TooLarge, Unauthorized
from limbeck.serving.logs import log_request
from limbeck.serving.metrics import Metrics
from limbeck.serving.settings import TOKEN, Settings, is_loopback

OPEN = frozenset({"/v2/health/live", "/v2/health/ready"})
"""Routes that need no token: those who watch over a server, as Kubernetes does, have none."""
_PROBES = OPEN | {"/metrics"}
"""Routes that are answered however much there is to do."""
_REQUEST_ID = re.compile(r"[\w.-]{1,64}", re.ASCII)
_DISCARD_SECONDS = 1.0
_PROCESS, _COUNT = uuid4().hex[:16], itertools.count(1)
_LOG = logging.getLogger(__name__)
Handler = Callable[[Request], Awaitable[Response]]
"""Answers a request."""
Direct = Callable[[Scope], tuple[str, Handler] | None]
"""Of a request that needs no routing: its route's name, and what answers it."""


class SlowBody(ServingError):
    """The caller takes too long to send."""

    status, code, reason = 408, "DEADLINE_EXCEEDED", "slow"


def new_id() -> str:
    """An id for a request: this process's own number, and a count."""
    return f"{_PROCESS}-{next(_COUNT)}"


def error_response(error: ServingError) -> JSONResponse:
    """An error as the Open Inference Protocol says it."""
    return JSONResponse({"error": str(error)}, error.status, error_headers(error))


def error_headers(error: ServingError) -> dict[str, str]:
    """What HTTP wants to be told of an error beside its status."""
    headers = {}
    if isinstance(error, Overloaded):
        headers["retry-after"] = str(error.retry_after)
    if isinstance(error, Draining):
        headers["retry-after"] = "1"
    if isinstance(error, Unauthorized):
        headers["www-authenticate"] = "Bearer"
    return headers


def same_token(given: str | None, token: str | None) -> bool:
    """Whether a caller may enter, in a time that does not depend on how much of the token is right.

    Args:
        given: the header `authorization`.
        token: of the server; None: there is none.
    """
    if token is None:
        return True
    kind, _, sent = (given or "").partition(" ")
    right = hmac.compare_digest(sent.strip().encode(), token.encode())
    return right and kind.lower() == "bearer"


def _is_from_here(headers: Headers) -> bool:
    """Whether a request is for this machine by its own name, and not from a page of somebody else's in a browser.

    Such a page may send requests here, and with a name of its own that leads here (DNS rebinding) read the answers.
    """
    origin = headers.get("origin")
    return _is_ours(headers.get("host", "")) and (origin is None or _is_ours(origin.partition("://")[2]))


@lru_cache(64)
def _is_ours(name: str) -> bool:
    """Whether a host, perhaps with a port, is this machine by its own name."""
    try:
        return is_loopback(urlsplit(f"//{name}").hostname or "")
    except ValueError:
        return False


class Door:
    """ASGI middleware.

    Args:
        app: behind it.
        settings: the bounds and the token.
        metrics: told of every request.
        respond: says an error in the protocol's way.
        direct: requests that go past the application's routing: it would cost more than a small model.

    Attributes:
        closed: whether it lets nobody in any more.
        leaving: whether connections are closed after their answer.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings,
        metrics: Metrics,
        respond: Callable[[ServingError], Response] = error_response,
        direct: Direct = lambda scope: None,
    ):
        self.app, self.settings, self.metrics, self.respond = app, settings, metrics, respond
        self._direct = direct
        self.closed = self.leaving = False
        self.in_flight = 0
        self._held = 0  # bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it here."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return  # no websockets: the server refuses what is not accepted
        headers = Headers(scope=scope)
        visit = _Visit(scope, headers, send, self.leaving)
        self.in_flight += 1
        self.metrics.in_flight.set(self.in_flight)
        size = 0
        try:
            self._admit(scope["path"], headers)
            size = self._reserve(headers)
            body = await self._read(receive, headers, size)
            if (found := self._direct(scope)) is None:
                await self.app(scope, _replay(body, receive), visit.send)
            else:
                visit.route, handle = found
                response = await self._handled(handle, Request(scope, _replay(body, receive)))
                await response(scope, receive, visit.send)
        except ServingError as error:
            visit.close_after |= not await self._discard(receive, headers, error)
            await self.respond(error)(scope, receive, visit.send)
        except _Gone:
            visit.status = 499
        except Exception:
            _LOG.exception("a request failed", extra={"request_id": visit.id})
            if visit.status == 0:
                failed = ServingError("the server failed on this request")
                await self.respond(failed)(scope, receive, visit.send)
        finally:
            self._held -= size
            self.in_flight -= 1
            self.metrics.in_flight.set(self.in_flight)
            visit.tell(self.metrics)

    async def _handled(self, handle: Handler, request: Request) -> Response:
        try:
            return await handle(request)
        except ServingError as error:
            return self.respond(error)

    def _admit(self, path: str, headers: Headers) -> None:
        if path not in OPEN and not same_token(headers.get("authorization"), self.settings.token):
            raise Unauthorized("the token is missing or wrong", fix="authorization: Bearer TOKEN")
        if self.settings.token is None and path not in OPEN and not _is_from_here(headers):
            raise Forbidden("without a token, this machine is answered only, by its own name", fix=f"set {TOKEN}")
        if path in _PROBES:
            return
        if self.closed:
            raise Draining("the server is about to stop")
        if self.in_flight > self.settings.max_requests:
            raise Overloaded("too many requests are under way")

    def _reserve(self, headers: Headers) -> int:
        """Room for a body of the size that is told; without one, for the largest."""
        told = headers.get("content-length")
        if told is None:
            size = self.settings.max_body if "transfer-encoding" in headers else 0
        elif not (told.isascii() and told.isdecimal() and len(told) < 20):
            raise BadRequest("content-length is no number")
        else:
            size = int(told)
        if size > self.settings.max_body:
            raise TooLarge(f"the body is above {self.settings.max_body} bytes")
        if self._held + size > self.settings.max_bodies:
            raise Overloaded("too many large requests are under way")
        self._held += size
        return size

    async def _read(self, receive: Receive, headers: Headers, size: int) -> bytes:
        if not size:
            return b""
        if headers.get("content-encoding", "identity") != "identity":
            raise BadRequest("compressed requests are not taken", fix="send it without content-encoding")
        parts: list[bytes] = []
        got, more = 0, True
        try:
            async with asyncio.timeout(self.settings.body_seconds):
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _Gone
                    parts.append(message.get("body", b""))
                    got += len(parts[-1])
                    if got > size:
                        raise TooLarge(f"the body is above {size} bytes")
                    more = message.get("more_body", False)
        except TimeoutError as error:
            raise SlowBody("the request took too long to come") from error
        return b"".join(parts)

    async def _discard(self, receive: Receive, headers: Headers, error: ServingError) -> bool:
        """Read what is left of a refused request, within bounds: a caller who still sends cannot read the answer.

        Returns:
            Whether all of it was read, so that the connection can go on.
        """
        if isinstance(error, SlowBody):
            return False
        left = 4 * self.settings.max_body
        if "content-length" not in headers and "transfer-encoding" not in headers:
            return True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DISCARD_SECONDS):
                while left > 0:
                    message = await receive()
                    if not message.get("more_body", False):
                        return bool(message["type"] == "http.request")
                    left -= len(message.get("body", b""))
        return False


class _Gone(Exception):
    """The caller went away before the request was whole."""


class _Visit:
    """One request on its way out."""

    def __init__(self, scope: Scope, headers: Headers, send: Send, leaving: bool):
        self.scope, self.began, self.status, self.close_after = scope, time.monotonic(), 0, leaving
        self.route: str | None = None
        given = headers.get("x-request-id", "")
        self.id = given if _REQUEST_ID.fullmatch(given) else new_id()
        self._send = send
        scope.setdefault("state", {})["request_id"] = self.id

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = [
                *message["headers"],
                (b"x-request-id", self.id.encode()),
                (b"x-content-type-options", b"nosniff"),
            ]
            if self.close_after:
                headers.append((b"connection", b"close"))
            message = {**message, "headers": headers}
        await self._send(message)

    def tell(self, metrics: Metrics) -> None:
        seconds = time.monotonic() - self.began
        route = self.route or str(getattr(self.scope.get("route"), "path", "other"))
        status = self.status or 499  # cancelled before an answer was begun
        metrics.ended("http", route, str(status), seconds)
        log_request(
            request_id=self.id,
            protocol="http",
            method=self.scope["method"],
            route=route,
            status=status,
            ms=round(seconds * 1000, 2),
        )


def _replay(body: bytes, receive: Receive) -> Receive:
    """The body once more, then what the server says."""
    sent = False

    async def again() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
