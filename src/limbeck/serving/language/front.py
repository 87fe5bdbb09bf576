"""What callers reach: OpenAI's routes, health and figures. Requests are checked, wait for a place, are passed on."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import httpx
from pydantic_core import from_json
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from limbeck.core.errors import DataError
from limbeck.serving.errors import BadRequest, Cancelled, Expired, Failed, NotFound, ServingError, unfit
from limbeck.serving.http import read, unless_gone
from limbeck.serving.language.engines import Engine, TooLong
from limbeck.serving.language.figures import Figures
from limbeck.serving.language.relay import Tally, gathered, passed, shaped
from limbeck.serving.language.schema import Asked, ChatAsked, TextAsked
from limbeck.serving.language.shapes import Shape, error_response, event, told_error
from limbeck.serving.language.slots import Slots
from limbeck.serving.language.supervisor import Supervisor, Unready
from limbeck.serving.metrics import CONTENT_TYPE, Metrics

_LOG = logging.getLogger(__name__)
_LARGEST = 64 * 2**20
"""Bytes of an answer."""
_LAST = 1.0
"""Seconds in which a caller must take the error that ends a stream."""
_LONG = 32 * 2**10
"""Bytes of a request that may be long to read for an engine."""
_ASKED: dict[str, type[ChatAsked] | type[TextAsked]] = {kind.route: kind for kind in (ChatAsked, TextAsked)}


class Front:
    """The application behind the door.

    Args:
        engine: that answers.
        supervisor: that keeps it running.
        metrics: of requests.

    Attributes:
        slots: places at the engine.
        figures: what is told of the model.
        leaving: whether it says that it is not ready.
    """

    def __init__(self, engine: Engine, supervisor: Supervisor, metrics: Metrics):
        self.engine, self.supervisor, self.metrics = engine, supervisor, metrics
        self.slots = Slots(engine.slots, engine.bounds.max_queue)
        self.figures = Figures(supervisor, self.slots)
        self.leaving = False
        self._long = asyncio.Lock()
        self._since = int(time.time())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        try:
            await self._answer(scope, receive, send)
        except ServingError as error:  # its body has been read: the door need not see to that
            await error_response(error)(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, method = scope["path"], scope["method"]
        if kind := _ASKED.get(path):
            scope["route"] = SimpleNamespace(path=path)
            _only(method, "POST")
            await self._complete(kind, Request(scope, receive), send)
            return
        reply = await self._plain(path)
        if reply is None:
            raise NotFound("there is no such route")
        scope["route"] = SimpleNamespace(path=path)
        _only(method, "GET", "HEAD")
        await reply(scope, receive, send)

    async def _plain(self, path: str) -> Response | None:
        name = self.engine.model.name
        if path == "/v2/health/live":
            return JSONResponse({"live": True})
        if path == "/v2/health/ready":
            ready = self.supervisor.ready and not self.leaving
            return JSONResponse({"ready": ready}, 200 if ready else 503)
        if path == "/v1/models":
            return JSONResponse({"object": "list", "data": [self._card()]})
        if path == f"/v1/models/{name}":
            return JSONResponse(self._card())
        if path == "/metrics":
            parts = [self.metrics.text(), self.figures.text(), await self.supervisor.figures()]
            return Response(b"".join(parts), headers={"content-type": CONTENT_TYPE})
        return None

    def _card(self) -> dict[str, Any]:
        model = self.engine.model
        told = {"id": model.name, "object": "model", "created": self._since, "owned_by": "limbeck"}
        return {**told, "max_model_len": model.context}

    async def _complete(self, kind: type[ChatAsked] | type[TextAsked], request: Request, send: Send) -> None:
        content = await request.body()
        asked = read(kind, content)
        if asked.model != self.engine.model.name:
            raise NotFound("there is no model of this name", got=asked.model[:100], allowed=self.engine.model.name)
        body = await self._put(asked, len(content))
        outlet, tally = _Outlet(send), Tally()
        try:
            await unless_gone(request, self._within_time(asked, body, outlet, tally))
        except ServingError as error:
            if not outlet.begun or isinstance(error, Cancelled):
                raise
            await outlet.fail(error)
        finally:
            if tally.known:
                self.figures.tell(tally)
                told = {"request_id": request.scope["state"]["request_id"], **tally.told()}
                _LOG.info("completion", extra=told)

    async def _put(self, asked: Asked, size: int) -> dict[str, Any]:
        """What the engine is sent; where that may take long, others are answered meanwhile."""
        try:
            if size < _LONG:
                return self.engine.request(asked)
            async with self._long:
                return await asyncio.to_thread(self.engine.request, asked)
        except DataError as error:  # the model's chat template takes no such conversation
            raise unfit(error) from error

    async def _within_time(self, asked: Asked, body: dict[str, Any], outlet: _Outlet, tally: Tally) -> None:
        try:
            async with asyncio.timeout(self.engine.bounds.deadline):
                async with self.slots.taken():
                    whole = await self._relay(asked, body, outlet, tally)
                await outlet.end(whole)
        except TimeoutError as error:
            raise Expired("the deadline has passed") from error
        except httpx.HTTPError as error:
            raise Unready("the model's engine stopped") from error

    async def _relay(self, asked: Asked, body: dict[str, Any], outlet: _Outlet, tally: Tally) -> bytes:
        """What is left to be sent once the engine is done: a whole answer, or nothing behind a stream."""
        async with self.supervisor.client.stream("POST", self.engine.route(asked), json=body) as reply:
            if reply.status_code != 200:
                raise await _refusal(reply)
            chunks, speaks = reply.aiter_raw(), self.engine.speaks
            shape = Shape(isinstance(asked, ChatAsked), self.engine.model.name)
            if asked.streams:
                await outlet.stream(passed(chunks, asked, tally) if speaks else shaped(chunks, asked, shape, tally))
                return b""
            if not speaks:
                return await gathered(chunks, asked, shape, tally)
            whole = await _whole(chunks)
            tally.count(from_json(whole).get("usage"))
            return whole


class _Outlet:
    """An answer on its way to the caller. With its last byte the server forgets the caller: nothing may follow it."""

    def __init__(self, send: Send):
        self._send = send
        self.begun = False

    async def stream(self, parts: AsyncIterator[bytes]) -> None:
        async for part in parts:
            if not self.begun:
                await self._start(b"text/event-stream; charset=utf-8", (b"cache-control", b"no-cache"))
            await self._send({"type": "http.response.body", "body": part, "more_body": True})

    async def end(self, content: bytes) -> None:
        if not self.begun:
            kind = b"application/json" if content else b"text/event-stream; charset=utf-8"
            await self._start(kind, (b"content-length", str(len(content)).encode()))
        await self._send({"type": "http.response.body", "body": content})

    async def fail(self, error: ServingError) -> None:
        """A stream that has begun ends with an error, and not as usual; who does not read is not waited for."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST):
                await self._send({"type": "http.response.body", "body": event(told_error(error))})

    async def _start(self, kind: bytes, header: tuple[bytes, bytes]) -> None:
        self.begun = True
        headers = [(b"content-type", kind), header, (b"x-accel-buffering", b"no")]  # for nginx before us
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})


async def _whole(chunks: AsyncIterator[bytes]) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for chunk in chunks:
        parts.append(chunk)
        size += len(chunk)
        if size > _LARGEST:
            raise Failed("the engine's answer is too large")
    return b"".join(parts)


async def _refusal(reply: httpx.Response) -> ServingError:
    """What an engine's refusal means for the caller. Of its failures nothing is told: they may name files here."""
    if reply.status_code == 503:
        return Unready("the model's engine is not ready")
    if not 400 <= reply.status_code < 500 or reply.status_code in (401, 403, 404):
        return Failed("the engine failed on this request")
    try:
        told = from_json(await _whole(reply.aiter_raw()))
    except ValueError:
        told = {}
    error = told.get("error", told) if isinstance(told, dict) else {}
    text = error.get("message") or error.get("detail") if isinstance(error, dict) else error
    kind = TooLong if isinstance(error, dict) and error.get("code") == TooLong.reason else BadRequest
    return kind(str(text or "the engine refuses this request")[:1000])


def _only(method: str, *allowed: str) -> None:
    if method not in allowed:
        raise _WrongMethod(f"{method} is not taken here", allowed=", ".join(allowed))


class _WrongMethod(BadRequest):
    status, code, reason = 405, "UNIMPLEMENTED", "method"
