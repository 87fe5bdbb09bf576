"""A client of `limbeck serve`; needs nothing but the standard library, and httpx where calls are to be asynchronous.

from limbeck.client import Client

with Client("http://127.0.0.1:8000") as client:
    print(client.predict("Where is my card?").label)
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from limbeck.core.errors import LimbeckError, MissingExtra

if TYPE_CHECKING:
    import httpx

Input = str | bytes | Mapping[str, Any]
"""A text, a picture's file, or both texts of a pair by name."""
_TOKEN = "LIMBECK_TOKEN"
_BUSY = (429, 503)


class ServerError(LimbeckError):
    """The server did not answer a request.

    Attributes:
        status: of HTTP.
    """

    def __init__(self, status: int, what: str):
        self.status = status
        super().__init__(f"the server answered {status}: {what}")


@dataclass(frozen=True)
class Prediction:
    """What a classifier says of one input.

    Attributes:
        label: the likeliest class.
        confidence: its probability.
        top: the likeliest classes and their probabilities.
        by: the model of a cascade that answered; None where there is no cascade.
        missed: why the models behind it did not, where they should have.
    """

    label: str
    confidence: float
    top: tuple[tuple[str, float], ...]
    by: str | None = None
    missed: tuple[str, ...] = ()


class _Shared:
    """What both clients have in common: addresses, tokens, bodies, answers."""

    def __init__(self, url: str, token: str | None, timeout: float, retries: int):
        self._url, self._timeout, self._retries = url.rstrip("/"), timeout, retries
        token = os.environ.get(_TOKEN) if token is None else token
        self._headers = {"content-type": "application/json"}
        if token:
            self._headers["authorization"] = f"Bearer {token}"

    def _pause(self, status: int, headers: Mapping[str, str], turn: int) -> float | None:
        """Seconds to wait before the request is sent again; None: it is not."""
        if status not in _BUSY or turn >= self._retries:
            return None
        told = headers.get("retry-after", "1")
        return min(float(told) if told.isdecimal() else 1.0, self._timeout)


class Client(_Shared):
    """Calls that wait for their answer.

    Args:
        url: of the server.
        token: left out: the one in the environment variable LIMBECK_TOKEN, if any.
        timeout: seconds that an answer may take.
        retries: how often a request is sent again that a busy server refused.
    """

    def __init__(self, url: str, token: str | None = None, *, timeout: float = 30.0, retries: int = 3):
        super().__init__(url, token, timeout, retries)
        parts = urlsplit(self._url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(parts.netloc, timeout=timeout)
        self._path = parts.path

    def predict(
        self, given: Input, *, top_k: int = 1, model: str | None = None, version: str | None = None
    ) -> Prediction:
        """The class of one input.

        Raises:
            ServerError: the server did not answer it.
            OSError: there is no server.
        """
        return self.predict_many([given], top_k=top_k, model=model, version=version)[0]

    def predict_many(
        self, given: Sequence[Input], *, top_k: int = 1, model: str | None = None, version: str | None = None
    ) -> list[Prediction]:
        """The classes of several inputs, in order.

        Raises:
            ServerError: the server did not answer them.
            OSError: there is no server.
        """
        return _predictions(self._call("POST", "/predict", _body(given, top_k, model, version)))

    def ready(self) -> bool:
        """Whether the server answers requests, as it is now: it is asked once.

        Raises:
            ServerError: it does not answer this question: the token is wrong, or it is another server.
        """
        try:
            status, _, content = self._send("GET", "/v2/health/ready", None)
        except OSError:
            return False
        return status != 503 and bool(_content(status, content)["ready"])

    def models(self) -> list[dict[str, str]]:
        """Name, version and state of every model."""
        found: list[dict[str, str]] = self._call("POST", "/v2/repository/index", b"{}")
        return found

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _call(self, method: str, path: str, body: bytes | None) -> Any:
        for turn in range(self._retries + 1):
            status, headers, content = self._send(method, path, body)
            pause = self._pause(status, headers, turn)
            if pause is None:
                break
            time.sleep(pause)
        return _content(status, content)

    def _send(self, method: str, path: str, body: bytes | None) -> tuple[int, dict[str, str], bytes]:
        for fresh in (False, True):
            try:
                self._connection.request(method, self._path + path, body, self._headers)
                response = self._connection.getresponse()
                return response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()
            except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
                # A connection that lay idle was closed; the question has no effects, so it may be sent once more.
                self._connection.close()
                if fresh:
                    raise
            except (OSError, http.client.HTTPException):
                self._connection.close()  # a half-read answer must not stand before the next question
                raise
        raise AssertionError("unreachable")


class AsyncClient(_Shared):
    """Calls that are awaited; many can be under way. Arguments as those of `Client`.

    Raises:
        MissingExtra: httpx is not installed.
    """

    def __init__(self, url: str, token: str | None = None, *, timeout: float = 30.0, retries: int = 3):
        super().__init__(url, token, timeout, retries)
        try:
            import httpx
        except ImportError as error:
            raise MissingExtra("limbeck.client.AsyncClient", "serve") from error
        self._client: httpx.AsyncClient = httpx.AsyncClient(base_url=self._url, headers=self._headers, timeout=timeout)

    async def predict(
        self, given: Input, *, top_k: int = 1, model: str | None = None, version: str | None = None
    ) -> Prediction:
        """The class of one input; errors as those of `Client`, or httpx's where there is no server."""
        return (await self.predict_many([given], top_k=top_k, model=model, version=version))[0]

    async def predict_many(
        self, given: Sequence[Input], *, top_k: int = 1, model: str | None = None, version: str | None = None
    ) -> list[Prediction]:
        """The classes of several inputs, in order."""
        import asyncio

        body = _body(given, top_k, model, version)
        for turn in range(self._retries + 1):
            response = await self._client.post("/predict", content=body)
            pause = self._pause(response.status_code, response.headers, turn)
            if pause is None:
                break
            await asyncio.sleep(pause)
        return _predictions(_content(response.status_code, response.content))

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()


def _body(given: Sequence[Input], top_k: int, model: str | None, version: str | None) -> bytes:
    asked: dict[str, Any] = {"inputs": [_row(each) for each in given], "top_k": top_k}
    asked |= {name: value for name, value in (("model", model), ("version", version)) if value is not None}
    return json.dumps(asked).encode()


def _row(given: Input) -> dict[str, Any]:
    if isinstance(given, str):
        return {"text": given}
    row = {"image": given} if isinstance(given, bytes) else dict(given)
    return {name: base64.b64encode(v).decode() if isinstance(v, bytes) else v for name, v in row.items()}


def _content(status: int, content: bytes) -> Any:
    try:
        told = json.loads(content)
    except ValueError:
        told = {"error": "no JSON; is it limbeck's server?"}
        status = status if status >= 400 else 502
    if status >= 400:
        raise ServerError(status, str(told.get("error", told)) if isinstance(told, dict) else str(told))
    return told


def _predictions(told: Any) -> list[Prediction]:
    return [
        Prediction(
            label=each["label"],
            confidence=each["confidence"],
            top=tuple((top["label"], top["confidence"]) for top in each["top"]),
            by=each.get("by"),
            missed=tuple(each.get("missed") or ()),
        )
        for each in told["predictions"]
    ]
