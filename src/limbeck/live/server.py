"""What the live pages have in common: an application that guards itself, its look, and how it is served.

    door = Door.checked(host, port, token)           # before anything heavy is loaded: refuses what is not safe
    app = new_app(door, body_bytes=64 * 1024)        # FastAPI, guarded; answers /assets/*
    app.get("/")(lambda: page("watch.html.j2", words("en"), title="...", ...))
    serve(app, door)                                 # in the foreground until Ctrl-C; prints the address

Templates extend `base.html.j2` (blocks `title`, `scripts`, `content`) and get `say`, words of
`limbeck.live.words`. Scripts and style sheets are files of `live/static/`, at /assets/<name>; nothing may be inline.
An endpoint raises `HTTPException(status, "a plain sentence.")`; the page gets it as {"error": sentence}, and a
LimbeckError too. A stream ends when `ending(request)` is true, so that Ctrl-C is not kept waiting.

What the guard sees to, for every request:
    - a Host that is not this machine is refused, so that no other site's name can be pointed here (DNS rebinding);
      behind another address than loopback the token does this work, and without one the door does not open
    - with a token: `Authorization: Bearer TOKEN`, or ?token=TOKEN once, which leaves a cookie
    - what changes something (not GET or HEAD) must come from this page: Origin, or Sec-Fetch-Site
    - a body longer than `body_bytes` is refused before it is read
    - every answer has the headers of _HEADERS: nothing from elsewhere, no frame, nothing kept
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import socket
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from limbeck.core.errors import LimbeckError, MissingExtra
from limbeck.core.progress import say as print_line
from limbeck.report.render import style

try:
    import uvicorn
    from fastapi import FastAPI, HTTPException, Request, Response
    from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse
    from starlette.datastructures import Headers, MutableHeaders
    from starlette.exceptions import HTTPException as AnyHTTPException
except ImportError as error:
    if error.name is not None and error.name.partition(".")[0] not in ("fastapi", "uvicorn", "starlette"):
        raise
    raise MissingExtra("a live page", "live") from None

if TYPE_CHECKING:
    from jinja2 import Environment
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from limbeck.report.words import Words

TOKEN_VARIABLE = "LIMBECK_TOKEN"
"""The environment variable with the token, where none is given on the command line."""

_SHORTEST_TOKEN = 16
_SILENT: Any = {"tracing": False, "metrics": False, "logs": False, "operation_spans": False, "auto_configure": False}
"""FastAPI would tell others what is asked, where the environment says so."""
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Not `no-referrer`: forms would then be sent with `Origin: null`.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


@dataclass(frozen=True)
class Door:
    """Where a page is served, and who may come in.

    Attributes:
        host: the address that is bound.
        port: the port; 0 takes a free one.
        token: what a visitor must show; None lets everybody on this machine in.
    """

    host: str = "127.0.0.1"
    port: int = 0
    token: str | None = field(default=None, repr=False)

    @classmethod
    def checked(cls, host: str, port: int, token: str | None = None) -> Door:
        """A door that is safe to open.

        Args:
            host: the address to bind.
            port: the port to bind; 0 takes a free one.
            token: what a visitor must show; left out: what the environment variable LIMBECK_TOKEN holds.

        Raises:
            LimbeckError: others could come in and there is no token, or the token is easily guessed.
        """
        token = token or os.environ.get(TOKEN_VARIABLE) or None
        if token is not None and (len(token) < _SHORTEST_TOKEN or not (token.isascii() and token.isprintable())):
            raise LimbeckError(
                "the token is too easily guessed, or cannot be sent",
                got=f"{len(token)} characters",
                allowed=f"{_SHORTEST_TOKEN} or more characters of ASCII",
                fix='python -c "import secrets; print(secrets.token_urlsafe())"',
            )
        door = cls(host, port, token)
        if not door.is_loopback and token is None:
            raise LimbeckError(
                "others could open this page, and there is no token to keep them out",
                got=f"--host {host}",
                allowed="127.0.0.1, or any address together with a token",
                fix=f"leave out --host, or set {TOKEN_VARIABLE} (or --token)",
            )
        return door

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return _is_loopback(self.host)


def new_app(door: Door, *, body_bytes: int = 64 * 1024) -> FastAPI:
    """A guarded application without pages; /assets/<name> gives the files of `live/static/`.

    Args:
        door: who may come in.
        body_bytes: the longest body of a request.
    """
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False, telemetry=_SILENT)
    app.state.server = None
    app.add_middleware(_Guard, door=door, body_bytes=body_bytes)
    app.add_exception_handler(AnyHTTPException, _refusal)
    app.add_exception_handler(LimbeckError, _told)
    app.add_exception_handler(Exception, _broken)
    kept = {"base.css": ("text/css", style() + _static("base.css"))}
    for path in files("limbeck.live").joinpath("static").iterdir():
        kind = {"css": "text/css", "js": "text/javascript"}.get(path.name.rpartition(".")[2])
        if kind is not None and path.name not in kept:
            kept[path.name] = (kind, path.read_text(encoding="utf-8"))

    @app.get("/assets/{name}")
    def asset(name: str) -> Response:
        if name not in kept:
            raise HTTPException(404, "There is no such file.")
        kind, text = kept[name]
        return Response(text, media_type=f"{kind}; charset=utf-8")

    return app


def page(template: str, say: Words, status: int = 200, **shown: Any) -> HTMLResponse:
    """A page of `live/templates/`, whose values are shown as text, whatever they hold.

    Args:
        template: its file; it extends `base.html.j2`.
        say: the words of its language.
        status: of the answer.
        shown: what the template needs besides.
    """
    return HTMLResponse(rendered(template, say, **shown), status)


def rendered(template: str, say: Words, **shown: Any) -> str:
    """The same as text: a page, or a part of one for a script to put in its place."""
    return _environment().get_template(template).render(say=say, **shown)


def ending(request: Request) -> bool:
    """Whether the server is being stopped: a stream should end."""
    server = request.app.state.server
    return server is not None and bool(server.should_exit)


def serve(app: FastAPI, door: Door) -> None:
    """Serve until Ctrl-C; one line with the address is printed once the port is taken.

    Raises:
        LimbeckError: the port or the address cannot be had.
    """
    taken = bound(door)
    host, port = taken.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    asked = "/?token=TOKEN" if door.token is not None else "/"
    config = uvicorn.Config(
        app,
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        lifespan="off",  # nothing is begun or ended with it, and a second Ctrl-C would cut it with a traceback
        timeout_graceful_shutdown=3,
    )
    app.state.server = server = uvicorn.Server(config)
    print_line(f"http://{shown}:{port}{asked}  (Ctrl-C ends it)".replace("[", "\\["))
    try:
        server.run(sockets=[taken])
    except KeyboardInterrupt:
        pass  # uvicorn has ended well, and then passes the signal on
    finally:
        taken.close()


class _Guard:
    """Lets in what the module's text says, and nothing else."""

    def __init__(self, app: ASGIApp, door: Door, body_bytes: int):
        self.app, self.door, self.body_bytes = app, door, body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            # Lifespan goes on; a web socket would come past the checks, and no page has one.
            await (self.app(scope, receive, send) if scope["type"] == "lifespan" else send({"type": "websocket.close"}))
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        request = Request(scope)
        answer = self._refused(request) or self._welcomed(request)
        if answer is not None:
            await answer(scope, receive, guarded)
        else:
            await self.app(scope, self._bounded(receive), guarded)

    def _refused(self, request: Request) -> Response | None:
        """Why a request is not answered, or None."""
        headers, door = request.headers, self.door
        host = _host_name(headers.get("host", ""))
        if host is None or (door.is_loopback and not _is_loopback(host)):
            return _sentence(request, 421, "This page is answered under the address of this machine only.")
        if door.token is not None and not self._has_token(request):
            return _sentence(request, 401, "This page wants its token: open it with ?token=TOKEN behind the address.")
        if request.method not in ("GET", "HEAD") and not _is_own(headers):
            return _sentence(request, 403, "This came from another page, and is not done.")
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit()) or int(length) > self.body_bytes:
            return _sentence(request, 413, _too_long(self.body_bytes))
        return None

    def _welcomed(self, request: Request) -> Response | None:
        """Send a first visitor on to the same address without the token, which stays in a cookie."""
        if self.door.token is None or request.method != "GET" or "token" not in request.query_params:
            return None
        rest = urlencode([(k, v) for k, v in parse_qsl(request.url.query, keep_blank_values=True) if k != "token"])
        # One slash: `//host` would lead elsewhere.
        answer = RedirectResponse("/" + request.url.path.lstrip("/") + (f"?{rest}" if rest else ""), 303)
        answer.set_cookie(_cookie(self.door.token), self.door.token, httponly=True, samesite="lax")
        return answer

    def _has_token(self, request: Request) -> bool:
        token = self.door.token or ""
        word, _, bearer = request.headers.get("authorization", "").partition(" ")
        shown = [request.cookies.get(_cookie(token)), request.query_params.get("token")]
        if word.lower() == "bearer":
            shown.append(bearer.strip())
        return any(hmac.compare_digest(each.encode(), token.encode()) for each in shown if each)

    def _bounded(self, receive: Receive) -> Receive:
        """The body, as far as it may go: its length need not have been told."""
        left = self.body_bytes

        async def bounded() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise HTTPException(413, _too_long(self.body_bytes))
            return message

        return bounded


def _too_long(most: int) -> str:
    return f"This is too long: at most {most // 1024} KiB can be sent."


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _host_name(header: str) -> str | None:
    """The name in a Host header or an Origin's end, without the port; None where it is none."""
    try:
        return urlsplit(f"//{header}").hostname
    except ValueError:
        return None


def _is_own(headers: Headers) -> bool:
    """Whether a request comes from this page, or from no page at all."""
    origin = headers.get("origin")
    if origin is not None:
        return origin in (f"http://{headers.get('host')}", f"https://{headers.get('host')}")
    return headers.get("sec-fetch-site", "none") in ("same-origin", "none")


def _cookie(token: str) -> str:
    """A cookie's name: cookies do not know ports, and another page of ours may be open."""
    return "limbeck-" + hashlib.sha256(token.encode()).hexdigest()[:8]


def _sentence(request: Request, status: int, text: str) -> Response:
    """A refusal: JSON for scripts, a line of text for people."""
    if "text/html" in request.headers.get("accept", ""):
        return PlainTextResponse(text, status)
    return JSONResponse({"error": text}, status)


def _refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, AnyHTTPException)
    return _sentence(request, error.status_code, str(error.detail))


def _told(request: Request, error: Exception) -> Response:
    assert isinstance(error, LimbeckError)
    return _sentence(request, 400, plainly(error))


def plainly(error: LimbeckError) -> str:
    """An error as a sentence for a page, without what only helps on a command line."""
    told = error.what if error.got is None else f"{error.what}: {error.got}"
    return told[:1].upper() + told[1:] + "."


def _broken(request: Request, error: Exception) -> Response:
    """What nobody foresaw; the terminal has the traceback, the page a sentence."""
    answer = _sentence(request, 500, "Something went wrong; the terminal says more.")
    answer.headers.update(_HEADERS)  # this one is sent from outside the guard
    return answer


def _static(name: str) -> str:
    return files("limbeck.live").joinpath("static", name).read_text(encoding="utf-8")


@cache
def _environment() -> Environment:
    """Templates of the live pages, with the report's rules."""
    from jinja2 import PackageLoader

    from limbeck.report.render import environment

    made = environment(html=True)
    made.loader = PackageLoader("limbeck", "live/templates")
    return made


def bound(door: Door) -> socket.socket:
    """A socket that has the port.

    Raises:
        LimbeckError: the port or the address cannot be had.
    """
    try:
        kind, _, _, _, address = socket.getaddrinfo(door.host, door.port, type=socket.SOCK_STREAM)[0]
        taken = socket.socket(kind, socket.SOCK_STREAM)
    except (OSError, OverflowError, UnicodeError) as error:
        raise LimbeckError("this address cannot be had", got=f"--host {door.host}", fix="leave out --host") from error
    try:
        if os.name == "posix":
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(address)
        taken.listen()
    except OSError as error:
        taken.close()
        what = f"port {door.port} of {door.host} cannot be had ({error.strerror})"
        raise LimbeckError(what, fix="--port 0 takes a free one") from error
    return taken
