"""An engine's start, its deaths, and the server's end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from limbeck.core.errors import ModelError
from tests.serving.language.serving import TOKEN, Broken, Serving, make_language, running
from tests.serving.language.test_front import client, says

httpx = pytest.importorskip("httpx")
openai = pytest.importorskip("openai")
pytest.importorskip("fastapi")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_language(tmp_path_factory.mktemp("models") / "student")


def until(true: Callable[[], bool], seconds: float = 15.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def ready(serving: Serving) -> int:
    try:
        own = {"authorization": f"Bearer {TOKEN}"}
        return int(httpx.get(f"{serving.url}/v2/health/ready", headers=own).status_code)
    except httpx.TransportError:
        return 0


def engine_of(serving: Serving) -> psutil.Process:
    (found,) = (each for each in psutil.Process().children() if "limbeck.serving.language.launch" in each.cmdline())
    return found


def test_what_is_in_flight_is_finished(folder: Path) -> None:
    with running(folder, linger=0.3) as serving, client(serving) as ai:
        engine = engine_of(serving)
        stream = ai.chat.completions.create(**says("slowly 50 x"), stream=True)
        chunks = iter(stream)
        seen = [next(chunks)]
        stopping = threading.Thread(target=serving.stop)
        stopping.start()
        until(lambda: ready(serving) == 503, 0.3)
        seen += chunks
        stopping.join()
        assert len(seen) == 50
        assert serving.finished is True
    assert not engine.is_running()


def test_an_engine_that_dies_is_started_again(folder: Path) -> None:
    with running(folder, bounds={"restarts": 1}) as serving, client(serving) as ai:
        first = engine_of(serving)
        assert ready(serving) == 200
        with pytest.raises(openai.APIError, match="engine stopped"):
            list(ai.chat.completions.create(**says("die a b"), stream=True))
        until(lambda: not first.is_running())
        until(lambda: ready(serving) == 200)
        second = engine_of(serving)
        assert ai.chat.completions.create(**says("say again")).choices[0].message.content == "again"
        second.send_signal(signal.SIGKILL)
        serving.ended()
        assert isinstance(serving.error, ModelError)
        assert serving.error.got == "ended by signal 9"


def test_an_engine_that_does_not_start_is_told_with_its_last_lines(folder: Path) -> None:
    with pytest.raises(ModelError, match="upstream did not start") as refused, running(folder, Broken):
        pass
    assert "no_such_engine" in str(refused.value.got)


def test_an_engine_that_takes_too_long_is_ended(folder: Path) -> None:
    with pytest.raises(ModelError, match="did not start") as refused, running(folder, bounds={"start_seconds": 0.01}):
        pass
    assert "too long" in str(refused.value.got)
    assert not [each for each in psutil.Process().children() if "limbeck.serving.language.launch" in each.cmdline()]


PARENT = """
import asyncio, os, sys
from pathlib import Path
from limbeck.serving.language.child import Child

async def main():
    place = Path(sys.argv[1])
    paths = f"{place}:{os.environ['PYTHONPATH']}"
    child = Child(["no_end"], {"PYTHONPATH": paths, "PIDS": str(place / "pids")}, place)
    await child.start()
    await asyncio.sleep(60)

asyncio.run(main())
"""
NO_END = """
import os, subprocess, sys, time
from pathlib import Path
other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
Path(os.environ["PIDS"]).write_text(f"{os.getpid()} {other.pid} {os.environ.get('LIMBECK_TOKEN')}")
time.sleep(60)
"""


def test_no_engine_outlives_a_server_that_is_killed(tmp_path: Path) -> None:
    (tmp_path / "no_end.py").write_text(textwrap.dedent(NO_END))
    pids = tmp_path / "pids"
    environment: dict[str, Any] = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(os.path.abspath, filter(None, sys.path))),
    }
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)], env={**environment, "LIMBECK_TOKEN": TOKEN}
    )
    until(lambda: pids.is_file() and len(pids.read_text().split()) == 3)
    *found, token = pids.read_text().split()
    engine, other = (psutil.Process(int(pid)) for pid in found)
    assert token == "None"  # the server's token is not the engine's business
    assert engine.is_running()
    parent.kill()
    parent.wait()
    psutil.wait_procs([engine, other], timeout=10)
    assert not engine.is_running()
    assert not other.is_running() or other.status() == psutil.STATUS_ZOMBIE
