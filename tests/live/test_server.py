"""Who is let in, what every answer says of itself, and how the server begins and ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from limbeck.core.errors import LimbeckError

pytest.importorskip("fastapi", reason="fastapi is not installed")
from fastapi import Request
from starlette.testclient import TestClient

from limbeck.live.server import TOKEN_VARIABLE, Door, bound, new_app

TOKEN = "a-token-nobody-guesses"
HERE = "http://127.0.0.1:8643"


def client(door: Door | None = None, at: str = HERE, **settings: Any) -> TestClient:
    app = new_app(door or Door(), body_bytes=100)

    @app.get("/")
    def page() -> dict[str, str]:
        return {"said": "hello"}

    @app.post("/")
    async def take(request: Request) -> dict[str, int]:
        return {"read": len(await request.body())}

    @app.get("/broken")
    def broken() -> None:
        raise ZeroDivisionError

    @app.get("/wrong")
    def wrong() -> None:
        raise LimbeckError("the wire is cut", got="two ends", fix="--mend")

    return TestClient(app, base_url=at, follow_redirects=False, **settings)


@pytest.fixture(autouse=True)
def no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost", "LOCALHOST"])
def test_this_machine_needs_no_token(host: str) -> None:
    assert Door.checked(host, 0).token is None


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.4", "::", "example.org", ""])
def test_another_address_without_a_token_is_refused(host: str) -> None:
    with pytest.raises(LimbeckError, match="no token to keep them out") as error:
        Door.checked(host, 0)
    assert TOKEN_VARIABLE in str(error.value)
    assert Door.checked(host, 0, TOKEN).token == TOKEN


def test_the_token_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    assert Door.checked("0.0.0.0", 0).token == TOKEN
    assert TOKEN not in repr(Door.checked("0.0.0.0", 0))


@pytest.mark.parametrize("token", ["short", "ä" * 20, "with a\nbreak in its middle"])
def test_a_token_that_is_none_is_refused(token: str) -> None:
    with pytest.raises(LimbeckError, match="too easily guessed") as error:
        Door.checked("127.0.0.1", 0, token)
    assert token not in str(error.value)


@pytest.mark.parametrize("at", ["http://evil.example", "http://127.0.0.1.evil.example", "http://192.168.1.4:8643"])
def test_a_host_that_is_not_this_machine_is_refused(at: str) -> None:
    assert client(at=at).get("/").status_code == 421
    assert client(at=at).post("/", content=b"x").status_code == 421


@pytest.mark.parametrize("at", ["http://127.0.0.1:8643", "http://localhost:8643", "http://[::1]:8643"])
def test_this_machine_has_several_names(at: str) -> None:
    assert client(at=at).get("/").json() == {"said": "hello"}


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_another_page_can_change_nothing(headers: dict[str, str]) -> None:
    assert client().post("/", content=b"x", headers=headers).status_code == 403


@pytest.mark.parametrize("headers", [{"Origin": HERE}, {"Sec-Fetch-Site": "same-origin"}, {}])
def test_this_page_and_programs_can(headers: dict[str, str]) -> None:
    assert client().post("/", content=b"x", headers=headers).json() == {"read": 1}


def test_a_body_is_bounded_by_what_it_says_and_by_what_it_is() -> None:
    assert client().post("/", content=b"x" * 100).json() == {"read": 100}
    assert client().post("/", content=b"x" * 101).status_code == 413

    def untold() -> Iterator[bytes]:
        yield from [b"x" * 60] * 2

    refused = client().post("/", content=untold())
    assert refused.status_code == 413
    assert refused.json()["error"].startswith("This is too long")


@pytest.mark.parametrize("path", ["/", "/nothing", "/broken", "/assets/base.css", "/assets/%2e%2e/server.py"])
def test_every_answer_has_the_headers(path: str) -> None:
    answer = client(raise_server_exceptions=False).get(path)
    assert answer.headers["content-security-policy"].startswith("default-src 'self'")
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-frame-options"] == "DENY"
    assert "unsafe" not in answer.headers["content-security-policy"]


def test_what_nobody_foresaw_is_a_sentence() -> None:
    answer = client(raise_server_exceptions=False).get("/broken")
    assert (answer.status_code, answer.json()["error"]) == (500, "Something went wrong; the terminal says more.")


def test_an_error_of_ours_is_its_sentence() -> None:
    answer = client().get("/wrong")
    assert (answer.status_code, answer.json()) == (400, {"error": "The wire is cut: two ends."})


def test_refusals_reach_people_too() -> None:
    answer = client().get("/nothing", headers={"Accept": "text/html"})
    assert (answer.status_code, answer.text) == (404, "Not Found")


def test_assets_are_those_of_the_package() -> None:
    assert "--accent" in client().get("/assets/base.css").text
    assert client().get("/assets/base.html.j2").status_code == 404
    assert client().get("/assets/../server.py").status_code == 404


class TestToken:
    def client(self) -> TestClient:
        return client(Door("0.0.0.0", 0, TOKEN), at="http://192.168.1.4:8643")

    def test_nobody_comes_in_without(self) -> None:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN}, {"Cookie": "limbeck=x"}):
            assert self.client().get("/", headers=headers).status_code == 401
        assert self.client().get("/?token=wrong").status_code == 401
        assert self.client().get("/assets/base.css").status_code == 401

    def test_a_program_shows_it(self) -> None:
        assert self.client().get("/", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200

    def test_a_browser_shows_it_once(self) -> None:
        visitor = self.client()
        first = visitor.get(f"/?token={TOKEN}&b=1%262")
        assert (first.status_code, first.headers["location"]) == (303, "/?b=1%262")
        assert "HttpOnly" in first.headers["set-cookie"]
        assert visitor.get("/").status_code == 200
        assert visitor.post("/", content=b"x", headers={"Origin": "http://evil.example"}).status_code == 403

    def test_it_leads_nowhere_else(self) -> None:
        first = self.client().get(f"http://192.168.1.4:8643//evil.example/x?token={TOKEN}")
        assert first.headers["location"] == "/evil.example/x"


def test_a_port_that_is_taken_is_said_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(LimbeckError, match=f"port {port} of 127.0.0.1 cannot be had") as error:
            bound(Door("127.0.0.1", port))
    assert "--port 0" in str(error.value)


def test_an_address_that_is_not_here_is_said_so() -> None:
    with pytest.raises(LimbeckError, match="cannot be had"):
        bound(Door("192.0.2.1", 0, TOKEN))
    with pytest.raises(LimbeckError, match="cannot be had"):
        bound(Door("x" * 70, 0, TOKEN))  # no name is so long


SERVED = """
from limbeck.live.server import Door, new_app, serve
import asyncio
from fastapi import Request
from fastapi.responses import StreamingResponse
from limbeck.live.server import ending
app = new_app(Door())
@app.get("/stream")
async def stream(request: Request):
    async def lines():
        while not ending(request):
            yield "on\\n"
            await asyncio.sleep(0.05)
    return StreamingResponse(lines())
serve(app, Door())
print("ended well")
"""


def test_one_line_is_printed_and_ctrl_c_ends_it_well() -> None:
    served = subprocess.Popen(
        [sys.executable, "-c", SERVED], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    )
    try:
        assert served.stderr is not None
        line = served.stderr.readline()
        address = line.split()[0]
        assert line == f"{address}  (Ctrl-C ends it)\n"
        with urllib.request.urlopen(address + "assets/base.css", timeout=30) as answer:
            assert answer.status == 200
        with urllib.request.urlopen(address + "stream", timeout=30) as stream:
            assert stream.readline() == b"on\n"
            served.send_signal(signal.SIGINT)
            out, err = served.communicate(timeout=60)
    finally:
        served.kill()
    assert (served.returncode, out, err) == (0, "ended well\n", "")
