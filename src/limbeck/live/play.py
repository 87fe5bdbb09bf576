"""The playground: one page on which a run's models answer side by side.

GET  /         the page
POST /         the same with answers, for browsers without script
POST /ask      answers as they come: JSON lines {event, ...}, of which `html` is what the page shows
GET  /row      a test row by chance, as JSON
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qsl

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool

from limbeck.core.errors import LimbeckError
from limbeck.core.types import Sample
from limbeck.live.asking import Answered, Compared, Event, Part, ask_all
from limbeck.live.desk import Desk, Full
from limbeck.live.opened import Opened
from limbeck.live.question import HOTTEST, NEW_TOKENS, PICTURE_BYTES, Question, data_url, read
from limbeck.live.server import Door, ending, new_app, page, plainly, rendered
from limbeck.live.words import words
from limbeck.report import formats
from limbeck.tasks.causal_lm import CausalLM

BODY_BYTES = 2 * PICTURE_BYTES
"""Longest body of a request: a picture grows by a third on its way."""
_PERIOD = 0.2
"""Seconds between two looks at whether the server is being stopped."""


def play_app(opened: Opened, door: Door, desk: Desk, *, language: str | None = None) -> FastAPI:
    """The application of the playground.

    Args:
        opened: the run.
        door: who may come in.
        desk: does the work.
        language: of the page; left out: that of the recipe's report.
    """
    app, shown = new_app(door, body_bytes=BODY_BYTES), _Page(opened, language, desk)
    app.get("/")(shown.plain)
    app.post("/")(shown.posted)
    app.post("/ask")(shown.ask)
    app.get("/row")(shown.row)
    return app


class _Page:
    """The endpoints, with what they share."""

    def __init__(self, opened: Opened, language: str | None, desk: Desk):
        self.opened, self.desk = opened, desk
        self.say = words(language or opened.recipe.report.language)

    async def plain(self) -> Response:
        return self._page({})

    async def posted(self, request: Request) -> Response:
        fields = _form(await request.body())
        events: list[Event] = []
        try:
            if fields.get("draw"):
                # Pictures cannot be sent by such a form: a test row is asked at once.
                kept: dict[str, Any] = {k: fields[k] for k in ("max_new_tokens", "temperature", "paid") if k in fields}
                fields = {**kept, **await self._done(request, self._drawn)}
            # Of a row its own pixels are asked, not their copy on the page.
            given = {k: v for k, v in fields.items() if k != "image"}
            question = await run_in_threadpool(read, self.opened, given, self.say)
            await self._done(request, lambda: self._ask(question, events.append, lambda: ending(request)))
        except HTTPException as error:
            return self._page(fields, wrong=str(error.detail), status=error.status_code)
        except LimbeckError as error:
            return self._page(fields, wrong=plainly(error), status=400)
        return self._page(fields, events=events)

    async def ask(self, request: Request) -> Response:
        try:
            fields = json.loads(await request.body())
        except (ValueError, RecursionError):
            fields = None
        if not isinstance(fields, dict):
            raise HTTPException(400, self.say("play.wrong.request"))
        question = await run_in_threadpool(read, self.opened, fields, self.say)
        stop, queue = threading.Event(), asyncio.Queue[Event | None]()
        loop = asyncio.get_running_loop()

        def tell(event: Event | None) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(queue.put_nowait, event)

        future = self._enter(lambda: self._ask(question, tell, lambda: stop.is_set() or ending(request)))
        future.add_done_callback(lambda _: tell(None))

        async def lines() -> AsyncIterator[str]:
            """What happens, a line each; who hangs up stops the work."""
            try:
                while (event := await self._next(request, queue)) is not None:
                    yield json.dumps(self._event(event), ensure_ascii=False) + "\n"
                if future.done():
                    future.result()  # what nobody foresaw is not passed over
                    yield json.dumps({"event": "end", "row": question.sample.id, "target": question.target}) + "\n"
            finally:
                stop.set()

        return StreamingResponse(lines(), media_type="application/x-ndjson")

    async def row(self, request: Request) -> Response:
        return JSONResponse(await self._done(request, self._drawn))

    def _page(
        self,
        fields: Mapping[str, Any],
        *,
        events: list[Event] | None = None,
        wrong: str | None = None,
        status: int = 200,
    ) -> Response:
        opened = self.opened
        done = {e.asked.name: self._html(e) for e in events or [] if isinstance(e, Answered)}
        verdict = [self._html(e) for e in events or [] if isinstance(e, Compared)]
        return page(
            "play.html.j2",
            self.say,
            status,
            name=opened.name,
            kind=opened.kind,
            models=opened.models,
            labels=list(opened.labels),
            graded=isinstance(opened.task, CausalLM) and opened.task.answer_pattern is not None,
            fields={**dict.fromkeys(_FIELDS), **fields},
            done=done,
            verdict="".join(verdict),
            wrong=wrong,
            size=self._size,
            most={"tokens": NEW_TOKENS, "temperature": int(HOTTEST), "bytes": PICTURE_BYTES},
            usual=min(opened.recipe.evaluate.max_new_tokens, NEW_TOKENS),
            has_pair=opened.recipe.data.text_pair is not None,
            words={key.rpartition(".")[2]: self.say.table[f"play.{key}"] for key in _SCRIPT},
        )

    def _size(self, asked: Any) -> str:
        if asked.parameters is None:
            return self.say("play.elsewhere")
        return self.say("play.parameters", n=formats.text(asked.parameters, formats.magnitude))

    def _ask(self, question: Question, tell: Callable[[Event], None], stopped: Callable[[], bool]) -> None:
        ask_all(self.opened.models, question, self.opened.task, tell, stopped)

    def _enter(self, work: Callable[[], Any]) -> Future[Any]:
        try:
            return self.desk.enter(work)
        except Full:
            raise HTTPException(429, self.say("play.wrong.busy")) from None

    async def _done(self, request: Request, work: Callable[[], Any]) -> Any:
        """What a piece of work gives, when its turn has come."""
        future = asyncio.wrap_future(self._enter(work))
        while not (await asyncio.wait([future], timeout=_PERIOD))[0]:
            if ending(request):
                raise HTTPException(503, self.say("play.script.broken"))
        return future.result()

    @staticmethod
    async def _next(request: Request, queue: asyncio.Queue[Event | None]) -> Event | None:
        """What happens next; None at the end, which is also that of the server."""
        while not ending(request):
            with suppress(TimeoutError):
                return await asyncio.wait_for(queue.get(), _PERIOD)
        return None

    def _event(self, event: Event) -> dict[str, Any]:
        if isinstance(event, Part):
            return {"event": "part", "model": event.asked.name, "text": event.text}
        told: dict[str, Any] = {"event": "compared", "html": self._html(event)}
        if isinstance(event, Answered):
            told |= {"event": "answered", "model": event.asked.name}
            if event.answer is not None:
                told |= {"prediction": event.answer.prediction, "text": event.answer.text}
        return told

    def _html(self, event: Answered | Compared) -> str:
        """What the page shows of it; templates show values as text."""
        if isinstance(event, Compared):
            return rendered("compared.html.j2", self.say, found=event)
        return rendered("answer.html.j2", self.say, found=event, answer=event.answer, formats=formats)

    def _drawn(self) -> dict[str, Any]:
        place, sample = self.opened.draw()
        return {"row": place, "target": sample.target, **_fields_of(sample)}


def _fields_of(sample: Sample) -> dict[str, Any]:
    """A row as the form's fields; earlier turns of a conversation stay with the row, and are shown."""
    found: dict[str, Any] = {}
    for name, value in sample.inputs.items():
        if name == "messages":
            found["prompt"] = value[-1]["content"]
            found["before"] = [{"role": turn["role"], "content": turn["content"]} for turn in value[:-1]]
        else:
            found[name] = value if isinstance(value, str) else data_url(value)
    return found


def _form(body: bytes) -> dict[str, Any]:
    """What a form sends; empty where it is no form of this page."""
    try:
        return dict(parse_qsl(body.decode("utf-8", "replace"), max_num_fields=20))
    except ValueError:
        return {}


_FIELDS = ("row", "text", "text_pair", "prompt", "before", "image", "target", "max_new_tokens", "temperature", "paid")
"""What the form of the page may be filled with."""
_SCRIPT = (
    "script.asking",
    "script.waiting",
    "script.stopped",
    "script.broken",
    "script.right_answer",
    "script.unknown",
    "script.again",
    "nothing",
    "colon",
    "script.by",
    "script.row",
    "script.row_own",
    "wrong.empty",
    "wrong.no_picture",
)
"""Words that the script needs."""
