"""The engine's process for onnxruntime-genai: a few answers at a time, token by token in turn, behind a socket file.

    python -m limbeck.serving.language.launch limbeck.serving.language.genai FOLDER SOCKET NAME CONTEXT THREADS

Only our own front asks here, with bodies that it has checked.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections import deque
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import uvicorn
from pydantic_core import from_json
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from limbeck.core.errors import DataError
from limbeck.core.types import Sample
from limbeck.runtime.genai import generator, load_genai
from limbeck.runtime.guess import card_of
from limbeck.runtime.pieces import Pieces
from limbeck.serving.errors import Failed, ServingError, unfit
from limbeck.serving.http import unless_gone
from limbeck.serving.language.engines import Genai, room
from limbeck.serving.language.model import Found, open_model
from limbeck.serving.language.shapes import Finish, Shape, Usage, error_response, event, told_error
from limbeck.serving.language.stops import Stops

_LOG = logging.getLogger(__name__)
_END, _FAILED = -1, -2
"""Instead of a token: there is no more; the engine has failed."""


class Writing:
    """An answer that is being written.

    Args:
        prompt: token ids.
        longest: tokens of the answer.
        search: how they are drawn.

    Attributes:
        written: tokens that the thread has made.
        taken: tokens that are part of the answer, the end token among them.
        ended: whether there is an end token.
        given_up: whether nobody waits for it any more.
    """

    def __init__(self, prompt: list[int], longest: int, search: dict[str, Any]):
        self.prompt, self.longest, self.search = prompt, longest, search
        self.generator: Any = None
        self.written = self.taken = 0
        self.ended = self.given_up = False
        self.tokens: asyncio.Queue[int] = asyncio.Queue()
        self.loop = asyncio.get_running_loop()

    def tell(self, token: int) -> None:
        """From the thread that writes."""
        self.loop.call_soon_threadsafe(self.tokens.put_nowait, token)


class Loop:
    """One thread that writes all answers, a token of each in turn.

    Args:
        model: of onnxruntime-genai.
        ends: tokens that end an answer.
    """

    def __init__(self, model: Any, ends: set[int]):
        self._model, self._ends = model, ends
        self._new: deque[Writing] = deque()
        self._wake = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def add(self, writing: Writing) -> None:
        """Begin an answer."""
        self._new.append(writing)
        self._wake.set()

    def _run(self) -> None:
        active: list[Writing] = []
        while True:
            if not active:
                self._wake.wait()
            self._wake.clear()
            while self._new:
                active.append(self._new.popleft())
            active = [writing for writing in active if self._step(writing)]

    def _step(self, writing: Writing) -> bool:
        """Write a token; whether there is more to write."""
        if writing.given_up:
            return False
        try:
            if writing.generator is None:
                length = len(writing.prompt) + writing.longest
                writing.generator = generator(self._model, writing.prompt, length, **writing.search)
            writing.generator.generate_next_token()
            token = int(writing.generator.get_next_tokens()[0])
        except Exception:  # its errors have no other base
            _LOG.exception("onnxruntime-genai failed")
            writing.tell(_FAILED)
            return False
        writing.written += 1
        last = writing.written == writing.longest
        ended = token in self._ends or (writing.generator.is_done() and not last)
        writing.tell(_END if ended else token)
        return not (ended or last)


class Server:
    """The routes.

    Args:
        folder: of the student.
        name: that it is served under.
        context: tokens of prompt and answer together.
        threads: of the engine; None: its own choice.
    """

    def __init__(self, folder: Path, name: str, context: int, threads: int | None):
        model = open_model(Found(name, folder, card_of(folder)), Genai.formats)
        self._codec, self._name, self._context = model.codec, name, context
        self._loop = Loop(load_genai(folder, model.card, threads), set(model.ends))

    def app(self) -> Starlette:
        """The application."""
        routes = [Route(f"/v1/{path}", self._answer, methods=["POST"]) for path in ("chat/completions", "completions")]
        healthy = Route("/health", lambda request: JSONResponse({"status": "ok"}))
        return Starlette(routes=[*routes, healthy])

    async def _answer(self, request: Request) -> Response:
        asked = from_json(await request.body())
        try:
            prompt = await asyncio.to_thread(self._prompt, asked)  # a long one takes a while
            writing = self._writing(asked, prompt)
            shape, stops = Shape("messages" in asked, self._name), Stops(asked["stop"])
            if asked["stream"]:
                return StreamingResponse(self._stream(writing, shape, stops), media_type="text/event-stream")
            return await unless_gone(request, self._whole(writing, shape, stops))
        except ServingError as error:
            return error_response(error)
        except DataError as error:
            return error_response(unfit(error))

    def _prompt(self, asked: dict[str, Any]) -> list[int]:
        if "messages" in asked:
            return self._codec.prompt_ids(Sample("asked", {"messages": asked["messages"]}))
        return list(self._codec.processor(asked["prompt"], verbose=False)["input_ids"])

    def _writing(self, asked: dict[str, Any], prompt: list[int]) -> Writing:
        longest = room(len(prompt), asked.get("max_tokens"), self._context)
        search: dict[str, Any] = {"do_sample": False}
        if asked["temperature"] > 0:
            search = {"do_sample": True, "temperature": asked["temperature"], "top_p": asked["top_p"]}
            search |= {"top_k": asked.get("top_k", 0), "random_seed": asked.get("seed", -1)}
        return Writing(prompt, longest, search)

    async def _pieces(self, writing: Writing, stops: Stops) -> AsyncIterator[str]:
        """The texts of an answer; when nobody takes them any more, it is given up."""
        pieces = Pieces(self._codec.processor)
        self._loop.add(writing)
        try:
            while not (stops.found or writing.ended or writing.taken == writing.longest):
                token = await writing.tokens.get()
                if token == _FAILED:
                    raise Failed("the engine failed on this request")
                writing.taken, writing.ended = writing.taken + 1, token == _END
                if not writing.ended and (text := stops.feed(pieces.feed(token))):
                    yield text
            if text := stops.feed(pieces.rest()) + stops.rest():
                yield text
        finally:
            writing.given_up = True

    async def _stream(self, writing: Writing, shape: Shape, stops: Stops) -> AsyncIterator[bytes]:
        yield shape.first()
        try:
            async for text in self._pieces(writing, stops):
                yield shape.piece(text)
        except ServingError as error:
            yield event(told_error(error))
            return
        yield shape.last(_finish(writing, stops), Usage(len(writing.prompt), writing.taken))

    async def _whole(self, writing: Writing, shape: Shape, stops: Stops) -> Response:
        text = "".join([text async for text in self._pieces(writing, stops)])
        usage = Usage(len(writing.prompt), writing.taken)
        return Response(shape.whole(text, _finish(writing, stops), usage), media_type="application/json")


def _finish(writing: Writing, stops: Stops) -> Finish:
    return "stop" if stops.found or writing.ended else "length"


def main(words: Sequence[str]) -> None:
    """Serve until it is ended.

    Args:
        words: as above.
    """
    folder, place, name, context, threads = words
    app = Server(Path(folder), name, int(context), int(threads) or None).app()
    uvicorn.run(app, uds=place, log_level="warning", access_log=False, ws="none", lifespan="off")


if __name__ == "__main__":
    main(sys.argv[1:])
