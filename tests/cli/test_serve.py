"""`limbeck serve` as a process: what it says, what it refuses, and how it leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.cli.command import inside, refused
from tests.serving.serving import make_text

httpx = pytest.importorskip("httpx")
for needed in ("fastapi", "uvicorn", "prometheus_client", "grpc"):
    pytest.importorskip(needed)
TOKEN = "canary-token-0123456789abcdef"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_text(tmp_path_factory.mktemp("models") / "small")


@contextmanager
def started(*words: str, token: str | None = None) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """A server on free ports, and what it said of itself."""
    env = {**os.environ, "HF_HUB_OFFLINE": "1"} | ({"LIMBECK_TOKEN": token} if token else {})
    command = [sys.executable, "-m", "limbeck", "serve", *words, "--port", "0"]
    # A file, not a pipe: a server whose log nobody reads would stop at its next line.
    with tempfile.NamedTemporaryFile("w+") as log:
        process = subprocess.Popen(command, env=env, text=True, stdout=subprocess.PIPE, stderr=log)
        try:
            assert process.stdout is not None
            said = {"log": log.name}
            while "try" not in said:
                line = process.stdout.readline()
                assert line, Path(log.name).read_text()
                word, _, rest = line.strip().partition(" ")
                said[word] = rest.strip()
            yield process, said
        finally:
            process.kill()
            process.communicate()


def test_sigterm_with_64_calls_in_flight_loses_none(folder: Path) -> None:
    with started(str(folder), "--grpc-port", "0", token=TOKEN) as (process, said):
        assert said["small"].endswith("torch, fp32")
        assert TOKEN not in str(said)
        headers = {"authorization": f"Bearer {TOKEN}"}
        with httpx.Client(base_url=said["http"], headers=headers, timeout=30) as client, ThreadPoolExecutor(64) as pool:
            client.get("/v2/health/ready").raise_for_status()
            barrier = threading.Barrier(65)

            def ask(i: int) -> int:
                barrier.wait(20)
                return int(
                    client.post("/predict", json={"inputs": [f"the word {i} of {k}" for k in range(8)]}).status_code
                )

            answers = [pool.submit(ask, i) for i in range(64)]
            barrier.wait(20)
            time.sleep(0.05)
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert [each.result(30) for each in answers] == [200] * 64
        assert process.wait(20) == 0
        assert time.monotonic() - began < 20
        logged = Path(said["log"]).read_text()
    assert TOKEN not in logged
    assert "the word" not in logged  # no payload
    lines = [json.loads(line) for line in logged.splitlines() if line.startswith("{")]
    asked = [line for line in lines if line.get("route") == "/predict"]
    assert len(asked) == 64
    assert all(line["status"] == 200 and line["ms"] > 0 and line["request_id"] for line in asked)
    assert lines[-1]["event"] == "stopped"


def test_an_address_that_others_reach_needs_a_token(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LIMBECK_TOKEN", raising=False)
    refused(inside(monkeypatch, "serve", str(folder), "--host", "0.0.0.0"), "needs a token", "LIMBECK_TOKEN")


def test_a_token_that_is_none_is_refused(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "token"
    file.write_text("short\n")
    done = inside(monkeypatch, "serve", str(folder), "--token-file", str(file))
    refused(done, "is no token", "openssl rand")
    assert "short" not in done.stderr


def test_what_cannot_be_served_is_told(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(inside(monkeypatch, "serve", str(tmp_path / "none")), "there is no folder")
    refused(inside(monkeypatch, "serve", str(tmp_path)), "there is no student")
    refused(inside(monkeypatch, "serve", str(folder), str(folder), "--name", "x"), "--name is for one model")


@pytest.fixture
def run(tmp_path: Path, folder: Path) -> Path:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/recipe.json").write_text("{}")
    return tmp_path / "run"


def test_of_a_run_the_quickest_form_is_served_that_the_engine_runs(run: Path, folder: Path) -> None:
    import shutil

    from limbeck.core.errors import ModelError
    from limbeck.runtime import Card, write_card
    from limbeck.serving.folders import served

    def chosen(**how: Any) -> str:
        return str(served(str(run), **how).folder.relative_to(run))

    with pytest.raises(ModelError, match="nothing that can be served"):
        chosen()
    shutil.copytree(folder, run / "train/student")
    assert chosen() == "train/student"
    (run / "export/onnx").mkdir(parents=True)
    write_card(Card(task={"type": "text-classification"}, format="onnx", labels=("a", "b")), run / "export/onnx")
    assert chosen() == "export/onnx"
    shutil.copytree(run / "export/onnx", run / "compress/student")
    assert chosen() == "compress/student"
    assert chosen(engine="onnxruntime") == "compress/student"
    assert chosen(engine="torch") == "train/student"
    assert served(f"mine={run}").name == "mine"
    assert served(str(run), name="other").name == "other"
    assert served(str(run)).name == "run"
