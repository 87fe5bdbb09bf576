"""An OpenAI-compatible endpoint in a thread: a function of the test writes the answers."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = Callable[[dict[str, Any]], str | int]
"""From the body of a call to the answer's text, or to a status that refuses it."""


@dataclass
class Endpoint:
    """Where it is, and what it was asked."""

    reply: Reply
    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    refusal: str = "no"

    def question(self, number: int) -> str:
        return str(self.bodies[number]["messages"][-1]["content"])

    def section(self, **fields: Any) -> dict[str, Any]:
        """The recipe's section for it."""
        return {"base_url": self.url, "model": "tiny", "price": {"input": 1, "output": 2}, **fields}


@contextmanager
def serving(reply: Reply) -> Iterator[Endpoint]:
    """An endpoint, until the test is done with it."""
    endpoint = Endpoint(reply)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            endpoint.bodies.append(body)
            said = endpoint.reply(body)
            refused = {"error": {"message": endpoint.refusal}}
            status, answer = (200, completion(said)) if isinstance(said, str) else (said, refused)
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            with suppress(OSError):  # who asked has gone
                self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    endpoint.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield endpoint
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def completion(text: str) -> dict[str, Any]:
    """The body of an answer; 10 tokens read, 5 written."""
    message = {"role": "assistant", "content": text}
    return {
        "model": "tiny",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
    }
