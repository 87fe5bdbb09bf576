"""An OpenAI-compatible endpoint that fails on purpose, the same way every time, and counts what it bills."""

from __future__ import annotations

import asyncio
import json
import random
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

FAULTS = (
    "rate_limited",
    "rate_limited_seconds",
    "rate_limited_date",
    "rate_limited_absurd",
    "error_500",
    "unavailable",
    "reset",
    "reset_billed",
    "hang",
    "blank_lines",
    "truncated",
    "html",
    "empty",
    "length",
    "unclosed",
)
"""Every kind but those that stop a run: 401 and 402."""


@dataclass
class Server:
    """What it does, and what it saw.

    Attributes:
        faults: share of calls that fail in each way; the rest are answered.
        seed: a call's fate is decided by it, the call's key and how often the key came before.
        idempotent: a key is billed once, and its answer given again.
        delay: seconds that each answer takes.
        calls: calls by what was done with them.
        seen: calls by the request's key.
        billed: tokens billed by key of idempotency, (prompt, completion).
        unknown: what of it went out without a word of what was billed.
    """

    faults: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0
    idempotent: bool = False
    delay: float = 0.0
    always: str | None = None
    calls: Counter[str] = field(default_factory=Counter)
    seen: Counter[str] = field(default_factory=Counter)
    billed: Counter[str] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)
    headers: list[dict[str, str]] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0
    url: str = ""
    _kept: dict[str, tuple[dict[str, int], str]] = field(default_factory=dict)

    def fate(self, key: str) -> str:
        """What happens to this call."""
        if self.always is not None:
            return self.always
        point = random.Random(f"{self.seed}:{key}:{self.seen[key]}").random()
        for kind, share in self.faults.items():
            point -= share
            if point < 0:
                return kind
        return "answer"

    def bill(self, key: str, body: Mapping[str, Any], kind: str, known: bool) -> str:
        """Charge for an answer and return it; `known`: the caller is told."""
        if self.idempotent and key in self._kept:
            return self._kept[key][1]
        usage, text = self._kept[key] = answer(key, body, kind)
        self.billed.update(usage)
        if not known:
            self.unknown.update(usage)
        return text

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        try:
            while (call := await _read(reader)) is not None:
                headers, body = call
                self.in_flight += 1
                self.most_in_flight = max(self.most_in_flight, self.in_flight)
                try:
                    await self._one(headers, body, reader, writer)
                finally:
                    self.in_flight -= 1
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _one(
        self, headers: dict[str, str], body: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        key = headers["idempotency-key"]
        kind = self.fate(key)
        self.seen[key.partition("-")[0]] += 1
        if "-" in key:
            self.seen[key] += 1  # a key with a suffix has a fate of its own
        self.calls[kind] += 1
        self.headers.append(headers)
        self.bodies.append(body)
        await asyncio.sleep(self.delay)
        if kind.startswith("status_"):
            echo = f"wrong key: {headers.get('authorization')}"
            _send(writer, int(kind[7:]), json.dumps({"error": {"message": echo}}))
        elif kind in _ERRORS:
            status, header = _ERRORS[kind]()
            _send(writer, status, '{"error": {"message": "no"}}', header)
        elif kind == "html":
            _send(writer, 200, "<html><body>Bad gateway</body></html>", "Content-Type: text/html\r\n")
        elif kind in ("reset", "reset_billed", "hang", "truncated"):
            text = "" if kind == "reset" else self.bill(key, body, kind, known=False)
            if kind == "hang":
                await reader.read()  # until the caller goes
            elif kind == "truncated":
                _send(writer, 200, text[: len(text) // 2])
            else:
                writer.transport.abort()
        else:
            text = self.bill(key, body, kind, known=True)
            _send(writer, 200, "\n" * 40 * (kind == "blank_lines") + text)
        await writer.drain()


_ERRORS = {
    "rate_limited": lambda: (429, ""),
    "rate_limited_seconds": lambda: (429, "Retry-After: 1\r\n"),
    "rate_limited_date": lambda: (
        429,
        f"Retry-After: {format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)}\r\n",
    ),
    "rate_limited_absurd": lambda: (429, "Retry-After: 99999999999\r\n"),
    "error_500": lambda: (500, ""),
    "unavailable": lambda: (503, "Retry-After: 0\r\n"),
}


def answer(key: str, body: Mapping[str, Any], kind: str) -> tuple[dict[str, int], str]:
    """Usage and body of the answer to a request, the same for the same key."""
    draw = random.Random(key)
    longest = body["max_tokens"]
    words = longest if kind == "length" else draw.randint(1, longest)
    usage = {"prompt_tokens": draw.randint(5, 20), "completion_tokens": words}
    message: dict[str, Any] = {"role": "assistant", "content": f"answer to {body['messages'][-1]['content']}"}
    style = draw.randrange(3)
    if kind == "empty":
        message["content"] = ""
    elif kind == "unclosed":
        message["content"] = "<think>\nhm, and so on"
    elif style == 0:
        message["reasoning_content"] = "a thought"
    elif style == 1:
        message["content"] = f"<think>\na thought\n</think>\n\n{message['content']}"
    finish = "length" if kind in ("length", "unclosed") else "stop"
    choice = {"index": 0, "message": message, "finish_reason": finish}
    text = json.dumps({"id": key[:8], "model": "served", "choices": [choice], "usage": usage})
    return usage, text


async def _read(reader: asyncio.StreamReader) -> tuple[dict[str, str], dict[str, Any]] | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    except asyncio.IncompleteReadError:
        return None
    pairs = (line.split(": ", 1) for line in head[1:] if line)
    headers = {name.lower(): value for name, value in pairs}
    return headers, json.loads(await reader.readexactly(int(headers["content-length"])))


def _send(writer: asyncio.StreamWriter, status: int, text: str, header: str = "") -> None:
    kind = "" if "Content-Type" in header else "Content-Type: application/json\r\n"
    data = text.encode()
    writer.write(f"HTTP/1.1 {status} X\r\n{kind}{header}Content-Length: {len(data)}\r\n\r\n".encode() + data)


@contextmanager
def serving(server: Server) -> Iterator[Server]:
    """Run a server in a thread of its own; its address is `server.url`."""
    started, loop = threading.Event(), asyncio.new_event_loop()
    stop = asyncio.Event()

    async def main() -> None:
        listener = await asyncio.start_server(server.handle, "127.0.0.1", 0, backlog=512)
        server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1"
        started.set()
        await stop.wait()
        listener.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def run() -> None:
        loop.run_until_complete(main())
        loop.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    started.wait(10)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
