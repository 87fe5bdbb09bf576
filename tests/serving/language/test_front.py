"""OpenAI's client, unchanged, in front of an engine; what is let through, refused, given up and told."""

from __future__ import annotations

import json
import logging
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from limbeck.core.errors import DataError
from limbeck.serving.language.bounds import Bounds
from limbeck.serving.language.slots import Slots
from tests.serving.language.serving import TOKEN, Serving, make_language, running

httpx = pytest.importorskip("httpx")
openai = pytest.importorskip("openai")
pytest.importorskip("fastapi")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_language(tmp_path_factory.mktemp("models") / "student")


@pytest.fixture(scope="module")
def serving(folder: Path) -> Iterator[Serving]:
    with running(folder) as found:
        yield found


def client(serving: Serving, token: str = TOKEN) -> Any:
    return openai.OpenAI(base_url=f"{serving.url}/v1", api_key=token, max_retries=0, timeout=20)


@pytest.fixture
def ai(serving: Serving) -> Iterator[Any]:
    with client(serving) as found:
        yield found


def says(text: str) -> dict[str, Any]:
    return {"model": "tiny", "messages": [{"role": "user", "content": text}]}


def post(serving: Serving, body: Any, path: str = "/v1/chat/completions", **headers: str) -> Any:
    sent = {"authorization": f"Bearer {TOKEN}", **headers}
    return httpx.post(serving.url + path, json=body, headers=sent, timeout=20)


def test_whole_answers_and_streams(ai: Any) -> None:
    whole = ai.chat.completions.create(**says("say one two"))
    assert whole.choices[0].message.content == "one two"
    assert whole.usage.completion_tokens == 2
    chunks = list(ai.chat.completions.create(**says("say one two"), stream=True))
    assert [chunk.choices[0].delta.content for chunk in chunks] == ["one", "two"]
    assert ai.completions.create(model="tiny", prompt="say hello").choices[0].text == "hello"
    chunks = list(
        ai.completions.create(model="tiny", prompt="say a b", stream=True, stream_options={"include_usage": True})
    )
    assert [chunk.choices[0].text for chunk in chunks[:-1]] == ["a", "b"]
    assert (chunks[-1].choices, chunks[-1].usage.prompt_tokens) == ([], 3)


def test_parts_of_a_stream_come_when_they_are_written(ai: Any) -> None:
    began, seen = time.monotonic(), []
    for _ in ai.chat.completions.create(**says("slowly 10 x"), stream=True):
        seen.append(time.monotonic() - began)
    assert len(seen) == 10
    assert seen[-1] - seen[0] > 0.15


def test_one_model_by_its_name(ai: Any) -> None:
    assert [model.id for model in ai.models.list()] == ["tiny"]
    assert ai.models.retrieve("tiny").id == "tiny"
    with pytest.raises(openai.NotFoundError):
        ai.models.retrieve("large")
    with pytest.raises(openai.NotFoundError) as refused:
        ai.chat.completions.create(**says("say x") | {"model": "large"})
    assert refused.value.code == "model_not_found"


def test_a_token_is_wanted(serving: Serving) -> None:
    with client(serving, "another-token-for-tests") as stranger, pytest.raises(openai.AuthenticationError) as refused:
        stranger.chat.completions.create(**says("say x"))
    assert refused.value.type == "authentication_error"
    status = {path: httpx.get(serving.url + path).status_code for path in ("/v2/health/live", "/metrics", "/v1/models")}
    assert status == {"/v2/health/live": 200, "/metrics": 401, "/v1/models": 401}


@pytest.mark.parametrize(
    "change",
    [
        {"foo": 1},
        {"messages": []},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://a/"}}]}]},
        {"messages": [{"role": "tool", "content": "x"}]},
        {"temperature": 3},
        {"max_tokens": 0},
        {"stop": ["a"] * 5},
        {"stop": ""},
        {"store": True},
        {"tools": [{"type": "function"}]},
        {"chat_template": "{{ 1 }}"},
    ],
    ids=str,
)
def test_what_has_no_effect_or_no_sense_is_refused(serving: Serving, change: dict[str, Any]) -> None:
    reply = post(serving, says("say x") | change)
    assert reply.status_code == 400
    assert reply.json()["error"]["type"] == "invalid_request_error"


def test_only_known_routes_pass(serving: Serving) -> None:
    own = {"authorization": f"Bearer {TOKEN}"}
    assert [post(serving, {}, path).status_code for path in ("/load_model", "/reset", "/v1/responses")] == [404] * 3
    assert httpx.get(f"{serving.url}/health", headers=own).status_code == 404
    assert httpx.get(f"{serving.url}/v1/completions", headers=own).status_code == 405
    assert post(serving, {}, "/v1/models").status_code == 405


def test_the_engine_is_told_all_that_matters_and_no_more(ai: Any) -> None:
    fields = {
        "user": "me",
        "extra_body": {"metadata": {"a": "b"}},
        "temperature": 0.5,
        "seed": -1,
        "stop": "x",
        "max_tokens": 7,
    }
    told = json.loads(ai.completions.create(model="tiny", prompt="echo", **fields).choices[0].text)
    assert told == {
        "model": "tiny",
        "prompt": "echo",
        "max_tokens": 7,
        "seed": 2**31 - 1,
        "stop": ["x"],
        "stream": False,
        "temperature": 0.5,
        "top_p": 1.0,
    }
    plain = json.loads(ai.completions.create(model="tiny", prompt="echo").choices[0].text)
    assert (plain["temperature"], plain["max_tokens"]) == (0.0, 16)  # greedy, as it was evaluated


def test_errors_of_the_engine(serving: Serving) -> None:
    refused, failed = post(serving, says("refuse")), post(serving, says("fail"))
    assert (refused.status_code, refused.json()["error"]["message"]) == (400, "not with me")
    assert failed.status_code == 500
    assert "secret" not in failed.text


def test_more_than_fits_is_refused_at_once(serving: Serving, ai: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving.server.front, "slots", Slots(1, 1))

    def ask(_: int) -> str:
        try:
            return str(ai.chat.completions.create(**says("slowly 10 x")).choices[0].message.content)[:1]
        except openai.RateLimitError as error:
            return f"{error.type} {int(error.response.headers['retry-after']) >= 1}"

    with ThreadPoolExecutor(6) as pool:
        told = sorted(pool.map(ask, range(6)))
    assert told == ["rate_limit_error True"] * 4 + ["x"] * 2
    assert ask(0) == "x"


def test_who_goes_away_frees_the_place(serving: Serving, ai: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    slots = Slots(1, 4)
    monkeypatch.setattr(serving.server.front, "slots", slots)
    before = int(ai.chat.completions.create(**says("given up")).choices[0].message.content)
    stream = ai.chat.completions.create(**says("slowly 500 x"), stream=True)
    next(iter(stream))
    with pytest.raises(openai.APITimeoutError):  # it waits behind the first, and is gone before its turn
        ai.with_options(timeout=0.1).chat.completions.create(**says("slowly 500 x"))
    stream.close()
    began = time.monotonic()
    while int(ai.chat.completions.create(**says("given up")).choices[0].message.content) < before + 1:
        assert time.monotonic() - began < 5, "the engine still writes for nobody"
    assert time.monotonic() - began < 5
    assert (slots.running, slots.waiting) == (0, 0)


def test_a_conversation_that_the_template_refuses(serving: Serving, ai: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(asked: object) -> None:
        raise DataError("the chat template refuses this conversation", got="two users in a row")

    monkeypatch.setattr(serving.server.front.engine, "request", refuse)
    with pytest.raises(openai.BadRequestError, match="two users in a row"):
        ai.chat.completions.create(**says("x"))


def test_the_deadline(serving: Serving, ai: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving.server.front.engine, "bounds", Bounds(deadline=0.3))
    with pytest.raises(openai.InternalServerError) as late:
        ai.chat.completions.create(**says("slowly 100 x"))
    assert late.value.status_code == 504
    stream = iter(ai.chat.completions.create(**says("slowly 100 x"), stream=True))
    assert next(stream).choices[0].delta.content == "x"
    with pytest.raises(openai.APIError, match="deadline"):
        list(stream)


def test_who_does_not_read_is_not_waited_for(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving.server.front.engine, "bounds", Bounds(deadline=0.5))
    body = json.dumps({"model": "tiny", "prompt": f"slowly 60 {'x' * 300_000}", "stream": True}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {TOKEN}\r\ncontent-length: {len(body)}"
    with socket.create_connection(("127.0.0.1", serving.server.port)) as caller:
        caller.sendall(f"{head}\r\n\r\n".encode() + body)
        end = time.monotonic() + 10
        while not serving.server.front.slots.running:
            assert time.monotonic() < end
            time.sleep(0.01)
        while (
            httpx.get(f"{serving.url}/metrics", headers={"authorization": f"Bearer {TOKEN}"}).text.count(
                "limbeck_requests_in_flight 1.0"
            )
            < 1
        ):
            assert time.monotonic() < end
            time.sleep(0.05)
        assert serving.server.front.slots.running == 0


def test_while_there_is_no_engine_callers_are_told_so(
    serving: Serving, ai: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving.server.supervisor, "ready", False)
    own = {"authorization": f"Bearer {TOKEN}"}
    assert httpx.get(f"{serving.url}/v2/health/ready", headers=own).status_code == 503
    with pytest.raises(openai.InternalServerError) as refused:
        ai.chat.completions.create(**says("say x"))
    assert (refused.value.status_code, refused.value.response.headers["retry-after"]) == (503, "1")
    assert httpx.get(f"{serving.url}/v2/health/live").status_code == 200


def test_logs_and_figures_without_a_word_of_it(ai: Any, serving: Serving, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "limbeck"):
        list(ai.chat.completions.create(**says("say swordfish"), stream=True))
        post(serving, says("say swordfish") | {"foo": "swordfish"})
        deadline = time.monotonic() + 5
        while len([r for r in caplog.records if r.getMessage() == "request"]) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert not any("swordfish" in str(vars(record)) for record in caplog.records)
    told = next(record for record in caplog.records if record.getMessage() == "completion")
    assert (vars(told)["prompt_tokens"], vars(told)["completion_tokens"]) == (3, 1)
    figures = httpx.get(f"{serving.url}/metrics", headers={"authorization": f"Bearer {TOKEN}"}).text
    assert "limbeck_language_engine_ready 1.0" in figures
    assert "upstream_figure 1.0" in figures
    assert 'route="/v1/chat/completions"' in figures
