"""Real engines: they say what the student says, stop when they are told to, and leave nothing behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils.import_utils import is_serve_available

from limbeck.core.types import Sample
from limbeck.runtime.card import write_card
from limbeck.runtime.writer import load_writer
from limbeck.serving.language.engines import Genai
from tests.runtime.students import LANGUAGE, QWEN, student
from tests.serving.language.serving import TOKEN
from tests.serving.language.test_life import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
httpx = pytest.importorskip("httpx")
openai = pytest.importorskip("openai")
pytest.importorskip("fastapi")

SERVER = """
import sys
from limbeck.serving.language.serve import serve_language
from limbeck.serving.logs import log_json
from limbeck.serving.settings import Settings, read_token

def ready(server):
    sys.stdout.write(f"{server.port}\\n")
    sys.stdout.flush()

log_json()
settings = Settings(port=0, token=read_token(None), linger=0.2)
sys.exit(0 if serve_language(sys.argv[1], settings, name="tiny", threads=1, ready=ready) else 1)
"""
TURNS = [{"role": "user", "content": "add 1 to word0"}]


def built(folder: Path, engine: str) -> Path:
    """A student in the form that an engine reads."""
    wider = {**QWEN, "hidden_size": 64, "head_dim": 32, "max_position_embeddings": 4096}
    card = student(folder / "student", LANGUAGE, wider)
    write_card(card, folder / "student")
    spell(folder / "student")
    if engine == "transformers":
        return folder / "student"
    from limbeck.exporters.onnxruntime_genai import OnnxruntimeGenai

    other = folder / "genai"
    other.mkdir()
    write_card(OnnxruntimeGenai(precision="fp32").export(folder / "student", other, card), other)
    return other


def spell(folder: Path) -> None:
    """Let a model write whole characters, and not end by itself: with tied weights a row of zeros is never likely."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        for i, row in enumerate(model.get_input_embeddings().weight):
            if i in tokenizer.all_special_ids or not tokenizer.decode([i]).isalnum():
                row.zero_()
    model.save_pretrained(folder)


class Process:
    """A server as a process."""

    def __init__(self, folder: Path, log: Path):
        paths = os.pathsep.join(map(os.path.abspath, filter(None, sys.path)))
        environment = {**os.environ, "LIMBECK_TOKEN": TOKEN, "PYTHONPATH": paths}
        words = [sys.executable, "-c", SERVER, str(folder)]
        with log.open("wb") as errors:
            self.popen = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True)
        assert self.popen.stdout is not None
        port = self.popen.stdout.readline().strip()
        assert port.isdigit(), log.read_text()[-3000:]
        self.log, self.url = log, f"http://127.0.0.1:{port}"
        self.client = openai.OpenAI(base_url=f"{self.url}/v1", api_key=TOKEN, max_retries=0, timeout=120)

    def engines(self) -> list[psutil.Process]:
        """All processes that it has started."""
        return psutil.Process(self.popen.pid).children(recursive=True)

    def ready(self) -> bool:
        """Whether it says so."""
        reply = httpx.get(f"{self.url}/v2/health/ready", headers={"authorization": f"Bearer {TOKEN}"}, timeout=20)
        return bool(reply.status_code == 200)


@contextmanager
def started(folder: Path, log: Path) -> Iterator[Process]:
    process = Process(folder, log)
    try:
        yield process
    finally:
        process.client.close()
        process.popen.terminate()
        process.popen.wait(60)
        assert process.popen.stdout is not None
        process.popen.stdout.close()


@pytest.fixture(scope="module", params=["transformers", "genai"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "genai" and not Genai.installed():
        pytest.skip("onnxruntime-genai is not installed")
    if request.param == "transformers" and not is_serve_available():
        pytest.skip("transformers serve needs fastapi, uvicorn and openai")
    return built(tmp_path_factory.mktemp("models"), request.param)


@pytest.fixture(scope="module")
def process(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with started(folder, tmp_path_factory.mktemp("log") / "server.log") as found:
        yield found


def streamed(chunks: Any) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def test_it_says_what_the_student_says(process: Process, folder: Path) -> None:
    create, writer = process.client.chat.completions.create, load_writer(folder)
    written = writer.write([Sample("x", {"messages": TURNS})], 24)[0]
    told = create(model="tiny", messages=TURNS, max_tokens=24)
    said = told.choices[0].message.content
    assert said == written.text
    assert (told.usage.completion_tokens, told.choices[0].finish_reason) == (24, "length")
    assert streamed(create(model="tiny", messages=TURNS, max_tokens=24, stream=True)) == said
    stop = said[6:9]
    cut = create(model="tiny", messages=TURNS, max_tokens=24, stop=stop)
    assert (cut.choices[0].message.content, cut.choices[0].finish_reason) == (said.partition(stop)[0], "stop")
    assert (
        streamed(create(model="tiny", messages=TURNS, max_tokens=24, stop=stop, stream=True)) == said.partition(stop)[0]
    )


def test_draws_repeat_by_their_seed(process: Process) -> None:
    def draw(**fields: Any) -> str:
        told = process.client.completions.create(model="tiny", prompt="add", max_tokens=30, **fields)
        return str(told.choices[0].text)

    assert draw() == draw()  # greedy
    assert draw(temperature=1.0, seed=1) == draw(temperature=1.0, seed=1) != draw(temperature=1.0, seed=2)
    assert draw(temperature=1.0, top_p=0.001, seed=1) == draw()


def test_what_is_too_long_is_refused(process: Process) -> None:
    for fields in ({"max_tokens": 5000}, {"messages": [{"role": "user", "content": "add " * 5000}]}):
        with pytest.raises(openai.BadRequestError) as refused:
            process.client.chat.completions.create(**{"model": "tiny", "messages": TURNS, **fields})
        assert refused.value.code == "context_length_exceeded"


def test_who_goes_away_is_not_written_for(process: Process) -> None:
    """The engine is idle again, though a long answer was asked for."""
    (engine,) = (each for each in process.engines() if "limbeck.serving.language.launch" in " ".join(each.cmdline()))
    for stream in (True, False):
        client = process.client.with_options(timeout=1.0)
        try:
            asked = client.completions.create(
                model="tiny", prompt="add", max_tokens=4000, stream=stream, temperature=2.0, seed=1
            )
            if stream:
                next(iter(asked))
                asked.close()
        except openai.APITimeoutError:
            pass

        def idle() -> bool:
            before = sum(engine.cpu_times()[:2])
            time.sleep(0.5)
            return sum(engine.cpu_times()[:2]) - before < 0.1

        until(idle, 10)
        assert process.client.completions.create(model="tiny", prompt="add", max_tokens=1).usage.completion_tokens == 1


def test_nothing_of_a_request_is_in_the_log(process: Process) -> None:
    turns = [{"role": "user", "content": "swordfish"}]
    process.client.chat.completions.create(model="tiny", messages=turns, max_tokens=4)
    log = process.log.read_text()
    assert '"event":"completion"' in log.replace(" ", "")
    assert "swordfish" not in log
    assert TOKEN not in log


def test_deaths_and_the_end(folder: Path, tmp_path: Path) -> None:
    """kill -9 of the engine: it comes back. SIGTERM with streams in flight: they are finished, and all is gone."""
    with started(folder, tmp_path / "server.log") as server:
        first = server.engines()
        os.kill(first[0].pid, signal.SIGKILL)
        until(lambda: not server.ready(), 10)
        until(server.ready, 120)
        stream = server.client.completions.create(model="tiny", prompt="add", max_tokens=400, stream=True)
        chunks = iter(stream)
        assert next(chunks).choices
        engines = server.engines()
        server.popen.send_signal(signal.SIGTERM)
        ends = [chunk.choices[0].finish_reason for chunk in chunks]
        assert server.popen.wait(60) == 0
        assert ends[-1] == "length"
        assert not [each for each in [*first, *engines] if each.is_running()]
        assert re.search(r'"event": ?"engine died"', server.log.read_text())
