"""Answers as OpenAI's protocol has them: whole, or as a stream of server-sent events."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Literal
from uuid import uuid4

from pydantic_core import to_json
from starlette.responses import JSONResponse, Response

from limbeck.serving.door import error_headers
from limbeck.serving.errors import NotFound, ServingError

DONE = b"data: [DONE]\n\n"
"""The end of a stream."""
Finish = Literal["stop", "length"]
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


@dataclass(frozen=True)
class Usage:
    """What an answer took.

    Attributes:
        prompt: tokens of the prompt.
        completion: tokens that were written.
    """

    prompt: int
    completion: int

    def told(self) -> dict[str, int]:
        """By OpenAI's names."""
        both = self.prompt + self.completion
        return {"prompt_tokens": self.prompt, "completion_tokens": self.completion, "total_tokens": both}


class Shape:
    """One answer.

    Args:
        chat: whether it is a turn of a conversation, and not a bare text.
        name: of the model.
    """

    def __init__(self, chat: bool, name: str):
        self.chat = chat
        kind = "chat.completion" if chat else "text_completion"
        told = {"id": f"{'chatcmpl' if chat else 'cmpl'}-{uuid4().hex}", "created": int(time.time()), "model": name}
        self._whole = {**told, "object": kind}
        self._chunk = {**told, "object": "chat.completion.chunk" if chat else kind}

    def first(self) -> bytes:
        """How a stream begins."""
        return self._event({"role": "assistant", "content": ""}, None) if self.chat else b""

    def piece(self, text: str) -> bytes:
        """A piece of the answer."""
        return self._event({"content": text} if self.chat else text, None)

    def last(self, finish: Finish, usage: Usage | None) -> bytes:
        """How a stream ends: why, and with which counts if they are asked for."""
        end = self._event({} if self.chat else "", finish)
        if usage is not None:
            end += event({**self._chunk, "choices": [], "usage": usage.told()})
        return end + DONE

    def whole(self, text: str, finish: Finish, usage: Usage) -> bytes:
        """The answer in one piece."""
        said: dict[str, Any] = {"message": {"role": "assistant", "content": text}} if self.chat else {"text": text}
        choice = {"index": 0, **said, "logprobs": None, "finish_reason": finish}
        return to_json({**self._whole, "choices": [choice], "usage": usage.told()})

    def _event(self, said: Any, finish: Finish | None) -> bytes:
        choice = {"index": 0, "delta" if self.chat else "text": said, "logprobs": None, "finish_reason": finish}
        return event({**self._chunk, "choices": [choice]})


def event(content: dict[str, Any]) -> bytes:
    """A server-sent event."""
    return b"data: " + to_json(content) + b"\n\n"


def told_error(error: ServingError) -> dict[str, Any]:
    """An error as OpenAI's clients read it."""
    kind = _TYPES.get(error.status, "invalid_request_error" if error.status < 500 else "server_error")
    code = "model_not_found" if isinstance(error, NotFound) else error.reason
    return {"error": {"message": str(error), "type": kind, "param": None, "code": code}}


def error_response(error: ServingError) -> Response:
    """An error where no answer has begun."""
    return JSONResponse(told_error(error), error.status, error_headers(error))
