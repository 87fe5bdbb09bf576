"""The server as a whole: when it has started, and what all of its callers together may ask of it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from limbeck.serving.metrics import Metrics
from limbeck.serving.server import Server
from limbeck.serving.settings import Settings
from tests.serving.serving import TOKEN, Serving, make_text, repository, running

httpx = pytest.importorskip("httpx")
grpc = pytest.importorskip("grpc")
AUTH = (("authorization", f"Bearer {TOKEN}"),)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_text(tmp_path_factory.mktemp("models") / "text")


@pytest.fixture(scope="module")
def serving(folder: Path) -> Iterator[Serving]:
    bounds = {"max_body": 200_000, "max_bodies": 400_000, "max_requests": 2, "body_seconds": 0.4}
    with running({"text": folder}, allow_load=True, **bounds) as made:
        yield made


@pytest.fixture
def channel(serving: Serving) -> Iterator[Any]:
    with grpc.insecure_channel(serving.grpc) as made:
        yield made


def call(channel: Any, name: str, metadata: Any = AUTH, **fields: Any) -> Any:
    from limbeck.serving.protos import SERVICE, methods

    asked, answer = methods()[name]
    made = channel.unary_unary(
        f"/{SERVICE}/{name}", request_serializer=asked.SerializeToString, response_deserializer=answer.FromString
    )
    return made(asked(**fields), metadata=metadata, timeout=20)


def infer(channel: Any, *texts: str) -> Any:
    contents = {"bytes_contents": [text.encode() for text in texts]}
    tensor = {"name": "text", "datatype": "BYTES", "shape": [len(texts)], "contents": contents}
    return call(channel, "ModelInfer", model_name="text", inputs=[tensor])


def refused(call: Callable[..., Any], *given: Any, **fields: Any) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as error:
        call(*given, **fields)
    return error.value.code().name, error.value.details()


def test_once_it_has_started_nobody_is_refused(folder: Path) -> None:
    """`started` is called in the server's own thread: it has no other moment to begin to listen."""
    metrics = Metrics()
    with repository({"text": folder}, metrics) as models:
        server = Server(models, Settings(port=0, linger=0.0, watch_seconds=None), metrics)
        answers = []

        def started() -> None:
            connection = socket.create_connection(("127.0.0.1", server.port), timeout=5)
            connection.sendall(b"GET /v2/health/live HTTP/1.1\r\nhost: localhost\r\n\r\n")

            def read() -> None:
                with connection:
                    answers.append(connection.recv(15))
                server.stop()

            threading.Thread(target=read).start()

        assert server.run(started)
        assert answers == [b"HTTP/1.1 200 OK"]


def test_a_small_answer_does_not_wait_for_the_caller_to_confirm_its_head(serving: Serving) -> None:
    """Nagle's algorithm and delayed confirmations together would take 40 ms for each."""
    with httpx.Client(base_url=serving.url, headers=dict(AUTH)) as client:
        took = []
        for _ in range(10):
            began = time.monotonic()
            client.get("/v2").raise_for_status()
            took.append(time.monotonic() - began)
    assert min(took[2:]) < 0.03


def wait_for(true: Callable[[], Any]) -> None:
    end = time.monotonic() + 5
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_probes_are_answered_however_much_there_is_to_do(serving: Serving, channel: Any) -> None:
    runner = serving.runner()
    runner.entered.clear()
    runner.gate.clear()
    with ThreadPoolExecutor(2) as pool, serving.models.lease() as model:
        try:
            busy = [pool.submit(infer, channel, "a")]
            assert runner.entered.wait(5)
            busy.append(pool.submit(infer, channel, "b"))
            wait_for(lambda: model.engine.waiting == 1)
            assert refused(infer, channel, "c") == ("RESOURCE_EXHAUSTED", "too many requests are under way")
            assert call(channel, "ServerLive", metadata=()).live
            assert call(channel, "ServerReady").ready
        finally:
            runner.gate.set()
        assert [len(each.result(10).outputs) for each in busy] == [4, 4]


def test_messages_together_have_a_bound(serving: Serving, channel: Any) -> None:
    runner = serving.runner()
    large = ["a " * 30_000] * 2  # 120 kB of 200 that are for messages that have been read
    runner.entered.clear()
    runner.gate.clear()
    with ThreadPoolExecutor(1) as pool:
        try:
            first = pool.submit(infer, channel, *large)
            assert runner.entered.wait(10)
            assert refused(infer, channel, *large) == (
                "RESOURCE_EXHAUSTED",
                "too many large requests are under way",
            )
        finally:
            runner.gate.set()
        assert len(first.result(10).outputs) == 4
    assert len(infer(channel, *large).outputs) == 4


def test_a_call_without_a_message_does_not_hold_others_up(serving: Serving, channel: Any) -> None:
    from limbeck.serving.protos import SERVICE

    over = threading.Event()

    def nothing() -> Iterator[bytes]:
        over.wait(10)
        yield from ()

    silent = channel.stream_unary(f"/{SERVICE}/ModelInfer").future(nothing(), metadata=AUTH, timeout=20)
    began = time.monotonic()
    assert len(infer(channel, "a").outputs) == 4  # there is one place to read at, which becomes free
    assert time.monotonic() - began < 5
    over.set()
    assert silent.code().name == "DEADLINE_EXCEEDED"


def test_what_is_no_call_and_no_message_is_told_so(channel: Any) -> None:
    from limbeck.serving.protos import SERVICE

    def raw(path: str, data: bytes, metadata: Any = AUTH) -> tuple[str, str]:
        return refused(channel.unary_unary(path), data, metadata=metadata, timeout=10)

    assert raw(f"/{SERVICE}/Nothing", b"") == ("UNIMPLEMENTED", "there is no such call")
    assert raw("/other.Service/ModelInfer", b"")[0] == "UNIMPLEMENTED"
    assert raw(f"/{SERVICE}/Nothing", b"", ())[0] == "UNAUTHENTICATED"
    assert raw(f"/{SERVICE}/ModelInfer", b"\xff\xff") == ("INVALID_ARGUMENT", "the message cannot be read")


def test_what_loading_does_not_know_is_refused(serving: Serving, channel: Any) -> None:
    with httpx.Client(base_url=f"{serving.url}/v2/repository/models/text", headers=dict(AUTH), timeout=20) as client:

        def post(path: str, **parameters: Any) -> int:
            return int(client.post(path, json={"parameters": parameters}).status_code)

        assert post("/load", config="{}") == 400
        assert post("/unload", other=True) == 400
        assert serving.models.versions("text") == ["1"]
        assert [post("/unload", unload_dependents=False), post("/load")] == [200, 200]
    config = {"model_name": "text", "parameters": {"config": {"string_param": "{}"}}}
    told = "the parameter `config` is not known; allowed: none"
    assert refused(call, channel, "RepositoryModelLoad", **config) == ("INVALID_ARGUMENT", told)
    assert refused(call, channel, "RepositoryModelUnload", **config)[0] == "INVALID_ARGUMENT"
    dependents = {"unload_dependents": {"bool_param": True}}
    call(channel, "RepositoryModelUnload", model_name="text", parameters=dependents)
    call(channel, "RepositoryModelLoad", model_name="text")
    assert serving.models.versions("text") == ["1"]


def test_why_a_model_cannot_be_loaded_is_told_whole(
    serving: Serving, channel: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from limbeck.core.errors import ModelError

    def fails(folder: Path) -> Any:
        raise ModelError("it cannot be loaded", got="a stone", allowed="bread", fix="bake")

    monkeypatch.setattr(serving.models, "_load", fails)
    told = "it cannot be loaded; got: a stone; allowed: bread; fix: bake"
    assert refused(call, channel, "RepositoryModelLoad", model_name="text") == ("INTERNAL", told)
    answer = httpx.post(f"{serving.url}/v2/repository/models/text/load", headers=dict(AUTH))
    assert (answer.status_code, answer.json()) == (500, {"error": told})
