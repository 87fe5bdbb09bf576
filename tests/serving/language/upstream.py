"""An engine for tests: it speaks OpenAI's protocol, and does what the prompt tells it.

say WORD...       those words, one piece each
slowly N WORD     the word N times, a piece each 20 ms
refuse, fail      400 with a text; 500 with a text that nobody should see
die               the process ends in the middle of its answer
given up          how many streams were cut off by the front
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

_GIVEN_UP = [0]


async def app(scope: Any, receive: Any, send: Any) -> None:
    """The routes."""
    if scope["type"] != "http":
        return
    if scope["path"] == "/health":
        await answer(send, 200, b"{}")
        return
    if scope["path"] == "/metrics":
        await answer(send, 200, b"upstream_figure 1.0\n")
        return
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    asked = json.loads(body)
    chat = "messages" in asked
    order, *words = (asked["messages"][-1]["content"] if chat else asked["prompt"]).split() or ["say"]
    if order == "refuse":
        await answer(send, 400, b'{"error": {"message": "not with me"}}')
    elif order == "fail":
        await answer(send, 500, b"Traceback: a secret of the engine")
    else:
        await write(asked, chat, order, words, receive, send)


async def answer(send: Any, status: int, body: bytes) -> None:
    """One reply."""
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def write(asked: dict[str, Any], chat: bool, order: str, words: list[str], receive: Any, send: Any) -> None:
    """Pieces of an answer."""
    pieces, pause = words, 0.0
    if order == "slowly":
        pieces, pause = [words[1]] * int(words[0]), 0.02
    elif order == "given":
        pieces = [str(_GIVEN_UP[0])]
    elif order == "echo":
        pieces = [json.dumps({name: asked[name] for name in sorted(asked) if name != "messages"})]
    usage = {"prompt_tokens": 3, "completion_tokens": len(pieces), "total_tokens": 3 + len(pieces)}
    told = {"id": "x", "created": 1, "model": asked["model"]}
    if not asked["stream"]:
        await asyncio.sleep(pause * len(pieces))
        text = " ".join(pieces)
        said = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        whole = {**told, "object": "x", "choices": [{"index": 0, "finish_reason": "stop", **said}], "usage": usage}
        await answer(send, 200, json.dumps(whole).encode())
        return
    gone = asyncio.ensure_future(receive())
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    for at, piece in enumerate(pieces):
        if order == "die" and at == 1:
            os._exit(9)
        said = {"delta": {"content": piece}} if chat else {"text": piece}
        await event(send, {**told, "choices": [{"index": 0, "finish_reason": None, **said}]})
        await asyncio.wait({gone}, timeout=pause)
        if gone.done():
            _GIVEN_UP[0] += 1
            return
    await event(send, {**told, "choices": [], "usage": usage})
    await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})


async def event(send: Any, content: dict[str, Any]) -> None:
    """A server-sent event, in two parts, as networks may cut it."""
    whole = b"data: " + json.dumps(content, separators=(",", ":")).encode() + b"\n\n"
    for part in (whole[:9], whole[9:]):
        await send({"type": "http.response.body", "body": part, "more_body": True})


if __name__ == "__main__":
    import uvicorn

    sys.stdout.write("the engine for tests begins\n")
    # As `transformers serve` does it: a port that is nobody's, were it not for the launcher.
    uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=1, log_level="error")).run()
