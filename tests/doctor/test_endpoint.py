"""The endpoint's check, against servers that answer, refuse, lead elsewhere or are not there."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any, cast

import pytest

from limbeck.core.recipe.endpoint import Endpoint
from limbeck.doctor._base import Finding
from limbeck.doctor.before.teacher_endpoint import TeacherEndpoint
from limbeck.doctor.plan import Plan

LISTED = json.dumps({"data": [{"id": "tiny"}, {"id": "large"}]})


@contextmanager
def serving(status: int, body: str = "", **headers: str) -> Iterator[tuple[str, list[tuple[str, Mapping[str, str]]]]]:
    """A server that says the same to every GET; its address, and what it was asked."""
    asked: list[tuple[str, Mapping[str, str]]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, dict(self.headers)))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", asked
    finally:
        server.shutdown()
        server.server_close()


def ask(url: str, **fields: Any) -> Finding:
    section = Endpoint(base_url=url, **{"model": "tiny", **fields})
    recipe = SimpleNamespace(
        teacher=SimpleNamespace(endpoint=section), generate=[SimpleNamespace(name="x", writer=None)]
    )
    (found,) = TeacherEndpoint(timeout=5).look(cast(Plan, SimpleNamespace(recipe=recipe)))
    return found


def test_it_is_alive_and_gets_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "sesame")
    with serving(200, LISTED) as (url, asked):
        assert ask(url, api_key="MY_KEY").severity == "ok"
    assert asked[0][0] == "/v1/models"
    assert asked[0][1]["Authorization"] == "Bearer sesame"


def test_it_has_not_the_model() -> None:
    with serving(200, LISTED) as (url, _):
        found = ask(url, model="tinny")
    assert found.severity == "error"
    assert found.change == "teacher.endpoint.model=tiny"


def test_its_key_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MY_KEY", raising=False)
    with serving(200, LISTED) as (url, asked):
        assert ask(url, api_key="MY_KEY").change == "export MY_KEY=..."
    assert asked == []


@pytest.mark.parametrize(("status", "severity"), [(401, "error"), (403, "error"), (404, "note"), (500, "error")])
def test_it_refuses(status: int, severity: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "sesame")
    with serving(status) as (url, _):
        found = ask(url, api_key="MY_KEY")
    assert found.severity == severity
    assert str(status) in found.evidence
    assert "sesame" not in str(found)


def test_a_key_does_not_follow_a_redirection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "sesame")
    with serving(200, LISTED) as (elsewhere, asked), serving(307, Location=f"{elsewhere}/models") as (url, _):
        found = ask(url, api_key="MY_KEY")
    assert asked == []
    assert found.severity == "error"
    assert "elsewhere" in found.reason


def test_it_lists_nothing_that_can_be_read() -> None:
    with serving(200, "<html>") as (url, _):
        assert ask(url).severity == "note"


def test_it_is_not_there() -> None:
    with serving(200) as (url, _):
        pass
    found = ask(url)
    assert found.severity == "error"
    assert "cannot be reached" in found.reason


def test_what_does_not_speak_http_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            one, _ = server.accept()
            with one:
                one.recv(1000)
                one.sendall(b"SSH-2.0\r\n")

        threading.Thread(target=answer, daemon=True).start()
        found = ask(f"http://127.0.0.1:{server.getsockname()[1]}/v1")
    assert (found.severity, found.reason) == ("error", "teacher.endpoint cannot be reached")
    assert "SSH" in found.evidence
