"""Runs one program and its tests, under limits; started by its path, on its own, by the verifier `code`.

Input, as JSON: program, test, limits (seconds, bytes of memory, bytes of a file), token. Output: one line of JSON with
the token, `outcome` and `detail`. The limits, the closed network and the refused calls keep a program from doing harm
by accident. They are no wall against one that was written to do harm.
"""

from __future__ import annotations

import _posixsubprocess
import _socket
import builtins
import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn

_REFUSED = (
    "os.system",
    "os.exec",
    "os.fork",
    "os.forkpty",
    "os.posix_spawn",
    "os.spawn",
    "os.kill",
    "os.killpg",
    "subprocess.Popen",
    "pty.spawn",
    "socket.",
    "ftplib.",
    "urllib.Request",
    "signal.pthread_kill",
    "ctypes.dlsym",
)
_CHANGING = (
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.mkdir",
    "os.chmod",
    "os.chown",
    "os.link",
    "os.symlink",
    "os.truncate",
    "os.utime",
    "os.setxattr",
    "os.removexattr",
)
_TWO_PLACES = ("os.rename", "os.link", "os.symlink")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_NEW_USER, _NEW_NETWORK = 0x10000000, 0x40000000


def _leave_network() -> None:
    """Enter a namespace without a network, where the system lets a plain process do so."""
    try:
        import ctypes

        ctypes.CDLL(None).unshare(_NEW_USER | _NEW_NETWORK)
    except (OSError, AttributeError, ImportError):
        pass  # not on this system; sockets are refused below in any case


def _limit(limits: dict[str, int]) -> None:
    def lower(what: int, value: int, spare: int = 0) -> None:
        hard = resource.getrlimit(what)[1]
        most = value + spare if hard == resource.RLIM_INFINITY else min(value + spare, hard)
        resource.setrlimit(what, (min(value, most), most))

    lower(resource.RLIMIT_CPU, limits["seconds"], spare=1)  # SIGXCPU, and a second later SIGKILL
    lower(resource.RLIMIT_FSIZE, limits["file"])
    lower(resource.RLIMIT_CORE, 0)
    lower(resource.RLIMIT_NOFILE, 64)
    if sys.platform != "darwin":  # there the limit is refused
        lower(resource.RLIMIT_AS, limits["memory"])
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a file that is too large is an OSError


def _guard(folder: str) -> Callable[[str, tuple[Any, ...]], None]:
    """An audit hook: no processes, no sockets, no files changed outside of the folder."""

    def inside(path: Any) -> bool:
        if isinstance(path, int):  # an open file may be one from outside that was opened to be read
            return False
        place = os.path.realpath(os.fsdecode(path))
        return place == os.devnull or place.startswith(folder + os.sep)

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event == "socket.__new__" and args[1] == _socket.AF_UNIX:
            return  # asyncio makes a pair of these; to connect one to anything is another event
        if event.startswith(_REFUSED):
            raise PermissionError(f"not allowed here: {event}")
        if event == "open" and not isinstance(args[0], int):
            mode, flags = args[1], args[2]
            writes = any(c in mode for c in "wax+") if isinstance(mode, str) else bool(flags & _WRITING)
            place = os.path.realpath(os.fsdecode(args[0]))
            writes = writes or (mode is None and os.path.isdir(place))  # a place that names are then written under
            if (writes and not inside(args[0])) or place.startswith("/proc/"):
                raise PermissionError(f"not allowed here: opening {place}")
        places = args[:2] if event in _TWO_PLACES else args[:1]
        if event.startswith(_CHANGING) and not all(map(inside, places)):
            raise PermissionError(f"not allowed here: {event}")
        if event == "sqlite3.connect" and args[0] not in ("", ":memory:") and not inside(args[0]):
            raise PermissionError(f"not allowed here: {event}")

    return hook


def _no_process(*_: Any) -> NoReturn:
    raise PermissionError("not allowed here: a new process")


def _outcome(program: str, test: str) -> tuple[str, str]:
    try:
        code = compile(program, "answer.py", "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return "syntax_error", f"{type(error).__name__}: {error}"
    tests = compile(test, "test.py", "exec")
    space: dict[str, Any] = {"__name__": "answer", "__builtins__": builtins}
    try:
        exec(code, space)
        exec(tests, space)
    except AssertionError as error:
        return "wrong", f"AssertionError: {error}"
    except MemoryError:
        return "memory", "MemoryError"
    except SystemExit:
        return "exited", "SystemExit"
    except BaseException as error:
        return "error", f"{type(error).__name__}: {error}"
    return "right", ""


def main() -> NoReturn:
    """Read the task, run it, say what became of it, and end without any clean-up that the program could hook into."""
    task = json.loads(sys.stdin.buffer.read())
    out = os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    leave, write = os._exit, os.write
    _leave_network()
    folder = os.path.realpath(os.getcwd())
    _limit(task["limits"])
    _posixsubprocess.fork_exec = _no_process  # it starts processes, and tells no hook of it
    sys.addaudithook(_guard(folder))
    token = task.pop("token")
    outcome, detail = _outcome(task["program"], task["test"])
    write(out, json.dumps({"token": token, "outcome": outcome, "detail": detail[:300]}).encode())
    leave(0)


if __name__ == "__main__":
    main()
