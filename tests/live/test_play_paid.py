"""A model behind an address in the playground: asked where that is wanted, within a budget, and never twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

pytest.importorskip("fastapi", reason="fastapi is not installed")
pytest.importorskip("openai", reason="openai is not installed")

from limbeck.core.artifacts import write_json
from limbeck.core.errors import RecipeError
from limbeck.live.opened import Opened
from tests.live.playing import Runs, client, events
from tests.pipeline.endpoint import Endpoint, serving

KEY = "sk-very-secret-0123456789"


@pytest.fixture(scope="module")
def run(runs: Runs) -> Path:
    return runs.folder("causal-lm")


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    monkeypatch.setenv("TEACHER_API_KEY", KEY)
    with serving(lambda body: f"1+1=2.\n#### {len(body['messages'][-1]['content'])}") as served:
        yield served


def recorded(run: Path, endpoint: Endpoint, folder: Path, **fields: Any) -> Path:
    """The run as if this teacher had written for it."""
    moved = folder / "moved"
    moved.mkdir()
    (moved / "train").symlink_to(run / "train", target_is_directory=True)
    recipe = json.loads((run / "recipe.json").read_text())
    template = {"template": "Think. {prompt}", "budget": {"tokens": 100}, **fields}
    teacher = {"endpoint": endpoint.section(api_key="TEACHER_API_KEY")}
    stages = [{"name": "distil", "max_steps": 2, "terms": [{"type": "cross_entropy"}]}]
    student = {**recipe["student"], "tokenizer": {"train": "bpe", "vocab_size": 300}}
    recipe |= {"teacher": teacher, "generate": template, "stages": stages, "student": student}
    write_json(moved / "recipe.json", recipe)
    return moved


def test_a_teacher_that_costs_is_asked_as_when_it_taught(run: Path, endpoint: Endpoint, tmp_path: Path) -> None:
    opened = Opened(recorded(run, endpoint, tmp_path), budget_tokens=2_000)
    opened.warm()
    page = client(opened)
    shown = page.get("/").text
    assert 'name="paid"' in shown
    assert "2,000 tokens" in shown
    assert {each.get("model") for each in events(page, prompt="1 + 1", max_new_tokens=8)} == {"student", None}
    assert endpoint.bodies == []

    told = events(page, prompt="1 + 1", max_new_tokens=8, paid="1")
    said = next(each for each in told if each["event"] == "answered" and each["model"] == "teacher")
    assert said["prediction"] == "12"
    assert "1+1=2." in said["text"]
    assert [(body["messages"][-1]["content"], body["max_tokens"]) for body in endpoint.bodies] == [("Think. 1 + 1", 8)]
    assert KEY not in shown + json.dumps(told)

    again = events(page, prompt="1 + 1", max_new_tokens=8, paid="1")
    assert len(endpoint.bodies) == 1
    assert (
        "Known from before" in next(each for each in again if each.get("model") == "teacher" and "html" in each)["html"]
    )


def test_the_budget_holds_over_sessions(run: Path, endpoint: Endpoint, tmp_path: Path) -> None:
    folder = recorded(run, endpoint, tmp_path)
    for _ in range(2):
        page = client(Opened(folder, budget_tokens=400))
        for question in ("1 + 1", "2 + 2", "3 + 3", "4 + 4", "5 + 5", "6 + 6", "7 + 7", "8 + 8"):
            told = events(page, prompt=question, max_new_tokens=8, paid="1")
    assert 0 < len(endpoint.bodies) < 8
    last = next(each for each in told if each.get("model") == "teacher" and "html" in each)
    assert "its budget does not hold this question" in last["html"]
    assert "prediction" not in last


def test_an_address_may_be_given_beside_the_run_s_models(run: Path, endpoint: Endpoint) -> None:
    opened = Opened(run, {"big": f"{endpoint.url}#tiny"}, api_key="TEACHER_API_KEY", budget_tokens=2_000)
    assert [each.name for each in opened.models] == ["teacher", "student", "big"]
    told = events(client(opened), prompt="1 + 1", max_new_tokens=8, paid="1")
    assert [each["prediction"] for each in told if each["event"] == "answered"][-1] == "5"


def test_what_an_endpoint_refuses_is_a_sentence(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEACHER_API_KEY", KEY)
    with serving(lambda body: 401) as endpoint:
        opened = Opened(run, {"big": f"{endpoint.url}#tiny"}, api_key="TEACHER_API_KEY", budget_tokens=2_000)
        told = events(client(opened), prompt="one more", max_new_tokens=8, paid="1")
    last = next(each for each in told if each.get("model") == "big" and "html" in each)
    assert "refuses to answer as tiny" in last["html"]
    assert KEY not in json.dumps(told)


@pytest.mark.slow
def test_ctrl_c_does_not_wait_for_an_address_that_is_silent(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEACHER_API_KEY", KEY)
    asked, over = threading.Event(), threading.Event()

    def silent(body: dict[str, Any]) -> int:
        asked.set()
        over.wait(300)
        return 500

    with (
        serving(silent) as endpoint,
        played(run, "--model", f"big={endpoint.url}#tiny", "--language", "zh") as (page, address),
    ):
        try:
            with urllib.request.urlopen(address, timeout=60) as shown:
                assert "提问" in shown.read().decode()
            form = urlencode({"prompt": "1 + 1", "max_new_tokens": 2, "paid": "1"}).encode()
            told: list[int] = []

            def ask() -> None:
                try:
                    urllib.request.urlopen(address, form, timeout=300)
                except urllib.error.HTTPError as error:
                    told.append(error.code)

            asking = threading.Thread(target=ask)
            asking.start()
            assert asked.wait(60)
            page.send_signal(signal.SIGINT)
            assert page.wait(60) == 0
            asking.join(60)
        finally:
            over.set()
        assert page.stderr is not None
        assert (told, page.stderr.read()) == ([503], "")


@contextmanager
def played(run: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`limbeck play`, and its address."""
    words = [sys.executable, "-m", "limbeck", "play", str(run), "--port", "0", *options]
    with subprocess.Popen(words, text=True, stderr=subprocess.PIPE, env={**os.environ, "COLUMNS": "200"}) as page:
        try:
            assert page.stderr is not None
            line = page.stderr.readline()
            if not line.startswith("http://127.0.0.1:"):
                page.kill()  # or its next line would be waited for without end
            assert line.startswith("http://127.0.0.1:"), line + page.stderr.read()
            yield page, line.split()[0]
        finally:
            page.kill()


def test_a_classifier_cannot_be_behind_an_address(runs: Runs) -> None:
    with pytest.raises(RecipeError, match="which gives text"):
        Opened(runs.folder("image-classification"), {"big": "http://127.0.0.1:9/v1#tiny"}, budget_tokens=2_000)
