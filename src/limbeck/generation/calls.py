"""One call to an endpoint, and what each way in which it can go wrong means."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from limbeck.generation.reply import clip, read_body
from limbeck.generation.retry import retry_after
from limbeck.generation.types import Failure, Outcome, Request

if TYPE_CHECKING:
    from openai import APIConnectionError, APIStatusError, AsyncOpenAI

_NOT_SENT = ("ConnectError", "ConnectTimeout", "PoolTimeout", "UnsupportedProtocol")
_NO_ACCOUNT = ("insufficient_quota", "billing_hard_limit_reached")


@dataclass(frozen=True)
class Call:
    """How a call ended.

    Attributes:
        outcome: the answer, or why there is none.
        usage: tokens of prompt and answer that were charged; None: not known, or nothing.
        maybe_charged: it may have been answered and paid for although nothing came back that says so.
        congested: a sign that the endpoint is asked too much.
        retry_after: seconds that it wants to be left alone for.
        refused: no request at all will be answered.
        status: HTTP status, None without one.
    """

    outcome: Outcome
    usage: tuple[int, int] | None = None
    maybe_charged: bool = False
    congested: bool = False
    retry_after: float | None = None
    refused: bool = False
    status: int | None = None


def body_of(request: Request) -> dict[str, Any]:
    """The JSON that asks for an answer. A field of `extra` that is None is left out."""
    sampling = request.sampling
    fields = {
        "model": request.model,
        "messages": [dict(message) for message in request.messages],
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": None if sampling.extra.get("max_completion_tokens") is not None else sampling.max_tokens,
        "stop": list(sampling.stop) or None,
        "seed": request.seed + request.sample,
        **sampling.extra,
    }
    return {name: value for name, value in fields.items() if value is not None}


class Caller:
    """Makes calls with one client.

    Args:
        client: the client.
        timeout: seconds that a call may take in all, signs of life or not.
        secret: the key, taken out of every text that is kept.
    """

    def __init__(self, client: AsyncOpenAI, timeout: float, secret: str):
        self._client, self._timeout = client, timeout
        self._clean = (lambda text: text.replace(secret, "[key]")) if len(secret) >= 8 else (lambda text: text)

    async def ask(self, request: Request, idempotency_key: str) -> Call:
        """Make one call; whatever happens to it is told by what is returned."""
        from openai import APIConnectionError, APIStatusError, APITimeoutError

        body = body_of(request)
        try:
            async with asyncio.timeout(self._timeout):
                raw = await self._client.chat.completions.with_raw_response.create(
                    model=body.pop("model"),
                    messages=body.pop("messages"),
                    extra_body=body,
                    extra_headers={"Idempotency-Key": idempotency_key},
                )
                reply = read_body(self._clean(raw.http_response.text))
        except (TimeoutError, APITimeoutError) as error:
            sent = not _is(error.__cause__, _NOT_SENT)
            detail = f"no answer within {self._timeout:g} s"
            return Call(Failure("timeout", detail), maybe_charged=sent, congested=True)
        except APIStatusError as error:
            return self._status(error)
        except APIConnectionError as error:
            return self._connection(error)
        return Call(reply.outcome, reply.usage, maybe_charged=reply.usage is None, status=200)

    def _connection(self, error: APIConnectionError) -> Call:
        cause = error.__cause__ or error
        detail = clip(self._clean(f"{type(cause).__name__}: {cause}"))
        return Call(Failure("connection", detail), maybe_charged=not _is(cause, _NOT_SENT))

    def _status(self, error: APIStatusError) -> Call:
        status = error.status_code
        detail = clip(self._clean(f"{status} {error.response.text}"))
        wait = retry_after(error.response.headers.get("retry-after"))
        if status in (401, 402, 403, 404) or (status == 429 and error.code in _NO_ACCOUNT):
            return Call(Failure("refused", detail), refused=True, status=status)
        if status == 429:
            return Call(Failure("rate_limited", detail), congested=True, retry_after=wait, status=status)
        if status in (503, 529):
            return Call(Failure("unavailable", detail), congested=True, retry_after=wait, status=status)
        if status >= 500 or status in (408, 409, 425):  # a gateway's own timeout says nothing of what is behind it
            late = status in (408, 504)
            failure = Failure("server_error", detail)
            return Call(failure, maybe_charged=late, congested=late, retry_after=wait, status=status)
        return Call(Failure("rejected", detail), status=status)


def _is(error: BaseException | None, names: tuple[str, ...]) -> bool:
    return type(error).__name__ in names
