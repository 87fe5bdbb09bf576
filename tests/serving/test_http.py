"""The server over HTTP: plain predictions, the Open Inference Protocol, and what it refuses."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from limbeck.core.types import Sample
from limbeck.runtime.student import load_student
from tests.serving.serving import LABELS, TOKEN, Serving, make_picture, make_text, running

httpx = pytest.importorskip("httpx")
pytest.importorskip("fastapi")
AUTH = {"authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {"text": make_text(root / "text"), "picture": make_picture(root / "picture")}


@pytest.fixture(scope="module")
def serving(folders: dict[str, Path]) -> Iterator[Serving]:
    with running(folders, max_body=200_000, body_seconds=1.0, limits={"max_queue": 64}) as made:
        yield made


@pytest.fixture(scope="module")
def client(serving: Serving) -> Iterator[Any]:
    with httpx.Client(base_url=serving.url, headers=AUTH, timeout=20) as made:
        yield made


@pytest.fixture(scope="module")
def stranger(serving: Serving) -> Iterator[Any]:
    with httpx.Client(base_url=serving.url, timeout=20) as made:
        yield made


def head(length: int) -> bytes:
    lines = ["POST /predict HTTP/1.1", "host: x", f"authorization: Bearer {TOKEN}", f"content-length: {length}"]
    return "\r\n".join([*lines, "", ""]).encode()


def png(seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_text_gets_the_label_that_the_student_gives(client: Any, folders: dict[str, Path]) -> None:
    expected = load_student(folders["text"]).predict([Sample("0", {"text": "the word1 of 7"})])[0]
    answer = client.post("/predict", json={"text": "the word1 of 7", "top_k": 2})
    assert answer.status_code == 200
    body = answer.json()
    assert (body["model"], body["version"]) == ("text", "1")
    found = body["predictions"][0]
    assert found["label"] == expected.label
    assert found["confidence"] == pytest.approx(expected.confidence, abs=1e-5)
    first, second = found["top"]
    assert first["label"] == expected.label
    assert second["confidence"] <= first["confidence"]


def test_many_rows_are_answered_in_order(client: Any, folders: dict[str, Path]) -> None:
    texts = [f"the word{i % 3} {'of ' * (i % 5)} {i}" for i in range(20)]
    expected = load_student(folders["text"]).predict([Sample(str(i), {"text": t}) for i, t in enumerate(texts)])
    inputs = [text if i % 2 else {"text": text} for i, text in enumerate(texts)]
    found = client.post("/predict", json={"inputs": inputs}).json()["predictions"]
    assert [each["label"] for each in found] == [each.label for each in expected]
    assert [each["confidence"] for each in found] == pytest.approx([each.confidence for each in expected], abs=1e-4)


def test_a_picture_comes_as_base64_as_a_form_or_as_it_is(client: Any, folders: dict[str, Path]) -> None:
    picture = Image.open(io.BytesIO(png()))
    expected = load_student(folders["picture"]).predict([Sample("0", {"image": picture})])[0].label
    text = base64.b64encode(png()).decode()
    answers = [client.post("/predict", json={"image": text, "model": "picture"})]
    answers.append(client.post("/predict", data={"model": "picture", "top_k": "2"}, files={"image": png()}))
    assert [each.status_code for each in answers] == [200, 200], [each.text for each in answers]
    assert {each.json()["predictions"][0]["label"] for each in answers} == {expected}
    refused = client.post("/predict", content=png(), headers={"content-type": "image/png"})
    assert refused.status_code == 400  # the first model reads texts
    assert "`text` takes no image" in refused.json()["error"]


def test_the_protocol_tells_what_there_is(client: Any) -> None:
    assert client.get("/v2").json()["name"] == "limbeck"
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    told = client.get("/v2/models/text").json()
    assert told["versions"] == ["1"]
    inputs = {each["name"]: (each["datatype"], each["shape"]) for each in told["inputs"]}
    assert inputs["text"] == ("BYTES", [-1])
    assert inputs["input_ids"] == ("INT64", [-1, -1])
    assert client.get("/v2/models/text/versions/1/ready").json() == {"ready": True}
    assert client.get("/v2/models/text/versions/2").status_code == 404
    assert client.get("/v2/models/none").json() == {"error": "there is no such model"}
    index = client.post("/v2/repository/index", json={}).json()
    assert [(each["name"], each["state"]) for each in index] == [("text", "READY"), ("picture", "READY")]


def infer(client: Any, inputs: list[dict[str, Any]], model: str = "text", **more: Any) -> Any:
    return client.post(f"/v2/models/{model}/infer", json={"inputs": inputs, **more})


def text_input(*texts: str) -> dict[str, Any]:
    return {"name": "text", "shape": [len(texts)], "datatype": "BYTES", "data": list(texts)}


def test_texts_and_tokens_get_the_same_logits(client: Any, folders: dict[str, Path]) -> None:
    student = load_student(folders["text"])
    samples = [Sample("0", {"text": "the word1 of 7"}), Sample("1", {"text": "of"})]
    arrays = student.arrays(student.encode(samples))
    expected = student.logits(student.encode(samples))
    outputs = infer(client, [text_input("the word1 of 7", "of")], id="mine").json()
    assert outputs["id"] == "mine"
    logits = next(each for each in outputs["outputs"] if each["name"] == "logits")
    assert logits["shape"] == [2, 3]
    np.testing.assert_allclose(np.reshape(logits["data"], (2, 3)), expected, atol=1e-5)
    own = [
        {"name": name, "shape": list(array.shape), "datatype": "INT64", "data": array.tolist()}
        for name, array in arrays.items()
    ]
    again = infer(client, own, outputs=[{"name": "logits"}]).json()["outputs"]
    assert [each["name"] for each in again] == ["logits"]
    np.testing.assert_allclose(np.reshape(again[0]["data"], (2, 3)), expected, atol=1e-5)


def test_a_picture_in_json_is_base64(client: Any) -> None:
    text = base64.b64encode(png()).decode()
    answer = infer(client, [{"name": "image", "shape": [1], "datatype": "BYTES", "data": [text]}], "picture")
    assert answer.status_code == 200, answer.text
    labels = {each["name"]: each for each in answer.json()["outputs"]}["label"]["data"]
    assert labels[0] in LABELS


BAD = [
    ("shape and data differ", [{**text_input("a"), "shape": [2]}]),
    ("a shape of nothing", [{**text_input("a"), "shape": [0]}]),
    ("a shape beyond all memory", [{**text_input("a"), "shape": [2**31 - 1] * 8}]),
    ("an unknown type", [{**text_input("a"), "datatype": "FP8"}]),
    ("numbers for a text", [{**text_input("a"), "data": [1]}]),
    ("texts for numbers", [{"name": "input_ids", "shape": [1, 2], "datatype": "INT64", "data": ["9" * 9999, 1]}]),
    ("truth for numbers", [{"name": "input_ids", "shape": [1, 2], "datatype": "INT64", "data": [True, 1]}]),
    ("a number that is too large", [{"name": "input_ids", "shape": [1, 1], "datatype": "INT64", "data": [2**63]}]),
    ("ragged", [{"name": "input_ids", "shape": [2, 2], "datatype": "INT64", "data": [[1, 2], [3]]}]),
    ("nested beyond its shape", [{"name": "input_ids", "shape": [1, 1], "datatype": "INT64", "data": [[[1]]]}]),
    ("another type", [{"name": "input_ids", "shape": [1, 1], "datatype": "INT32", "data": [1]}]),
    ("an input that is missing", [{"name": "input_ids", "shape": [1, 1], "datatype": "INT64", "data": [1]}]),
    ("an unknown input", [{"name": "x", "shape": [1, 1], "datatype": "INT64", "data": [1]}]),
    ("both forms", [text_input("a"), {"name": "input_ids", "shape": [1, 1], "datatype": "INT64", "data": [1]}]),
    ("twice", [text_input("a"), text_input("a")]),
    ("blank", [text_input("  ")]),
    ("no data", [{"name": "text", "shape": [1], "datatype": "BYTES"}]),
    ("an unknown field", [{**text_input("a"), "x": 1}]),
]


@pytest.mark.parametrize("inputs", [inputs for _, inputs in BAD], ids=[name for name, _ in BAD])
def test_invalid_tensors_are_refused(client: Any, inputs: list[dict[str, Any]]) -> None:
    answer = infer(client, inputs)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"null", b"[" * 100_000, b'{"inputs":' * 10_000, b'{"text": NaN}', b"\xff\xfe",
        b'{"text": "a", "other": 1}', b'{"text": ""}', b'{"text": 1}', b'{"inputs": []}', b'{"inputs": [[["a"]]]}',
        b'{"text": "a", "top_k": 0}', b'{"image": "!!!!"}', b'{"image": "aGVsbG8="}', b"{}",
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/predict", "/v2/models/text/infer"])
def test_what_cannot_be_read_is_refused(client: Any, path: str, body: bytes) -> None:
    answer = client.post(path, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400, answer.text
    assert set(answer.json()) == {"error"}


def test_binary_data_that_is_not_all_there_is_refused(client: Any) -> None:
    def post(size: int, rest: bytes, head: int | str | None = None) -> int:
        tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": size}}
        told = json.dumps({"inputs": [tensor]}).encode()
        headers = {"inference-header-content-length": str(len(told) if head is None else head)}
        return int(client.post("/v2/models/text/infer", content=told + rest, headers=headers).status_code)

    good = b"\x01\x00\x00\x00a"
    assert post(5, good) == 200
    assert post(6, good) == 400
    assert post(5, good + b"x") == 400
    assert post(5, b"\xff\xff\xff\xffa") == 400
    assert post(5, good, head=9999) == 400
    assert post(5, good, head="0" * 5000) == 400
    assert post(-1, good) == 400


@pytest.mark.parametrize("path", ["/predict", "/v2", "/v2/models/text", "/metrics", "/openapi.json", "/nothing"])
@pytest.mark.parametrize(
    "header", [None, "Bearer wrong", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN[:-1]}", "Bearer", "Bearer \xe9"]
)
def test_without_the_token_nothing_is_told(stranger: Any, path: str, header: str | None) -> None:
    headers = {} if header is None else {"authorization": header.encode("latin-1")}
    answer = stranger.get(path, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert stranger.get("/v2/health/live").status_code == 200


def test_large_and_slow_bodies_are_refused(serving: Serving, client: Any) -> None:
    assert client.post("/predict", json={"text": "a" * 300_000}).status_code == 413
    assert client.post("/predict", json={"text": "a" * 150_000}).status_code == 413  # too long a text
    chunks = (b"a" * 1000 for _ in range(300))
    assert client.post("/predict", content=chunks).status_code == 413
    assert client.post("/predict", content=b"x", headers={"content-encoding": "gzip"}).status_code == 400
    with serving.connect() as slow:
        slow.sendall(head(100) + b'{"te')
        assert b" 408 " in slow.recv(4096).splitlines()[0]


def test_a_connection_that_never_asks_is_closed(serving: Serving) -> None:
    def closed(connection: Any) -> bool:
        try:
            return connection.recv(10) == b""
        except ConnectionResetError:
            return True

    began = time.monotonic()
    with serving.connect() as silent, serving.connect() as dripping:
        dripping.sendall(b"GET /v2 HTTP/1.1\r\n")
        time.sleep(0.6)
        dripping.sendall(b"x: y\r\n")
        assert closed(silent)
        assert closed(dripping)
    assert time.monotonic() - began < 4


def test_endless_headers_are_cut_off(serving: Serving) -> None:
    sent = 0
    with serving.connect() as connection, contextlib.suppress(OSError):  # a broken pipe or a reset, as it happens
        connection.sendall(b"GET /v2 HTTP/1.1\r\n")
        while sent < 20_000_000:
            connection.sendall(b"x: %s\r\n" % (b"y" * 1000))
            sent += 1000
    assert sent < 20_000_000


def test_a_full_queue_says_when_to_come_back(serving: Serving, client: Any) -> None:
    runner = serving.runner("text")
    runner.entered.clear()
    runner.gate.clear()
    with ThreadPoolExecutor(2) as pool:
        try:
            first = pool.submit(client.post, "/predict", json={"text": "a"})
            assert runner.entered.wait(5)
            second = pool.submit(client.post, "/predict", json={"inputs": ["b"] * 60})
            with serving.models.lease("text") as model:
                while model.engine.waiting < 60:
                    time.sleep(0.005)
            refused = client.post("/predict", json={"inputs": ["c"] * 10})
            assert refused.status_code == 429
            assert int(refused.headers["retry-after"]) >= 1
            assert client.get("/v2/health/ready").status_code == 200
            depth = 'limbeck_queue_rows{model="text",version="1"} 60.0'
            assert depth in client.get("/metrics").text
        finally:
            runner.gate.set()
        assert first.result(10).status_code == 200
        assert len(second.result(10).json()["predictions"]) == 60


def test_a_deadline_is_kept_while_the_model_is_busy(serving: Serving, client: Any) -> None:
    runner = serving.runner("text")
    runner.gate.clear()
    try:
        began = time.monotonic()
        late = infer(client, [text_input("a")], parameters={"timeout": 100_000})
        assert late.status_code == 504
        assert time.monotonic() - began < 3
    finally:
        runner.gate.set()


def test_a_caller_that_goes_away_is_not_computed_for(serving: Serving, client: Any) -> None:
    runner = serving.runner("text")
    runner.entered.clear()
    runner.gate.clear()
    with ThreadPoolExecutor(1) as pool, serving.models.lease("text") as model:
        try:
            first = pool.submit(client.post, "/predict", json={"text": "a"})
            assert runner.entered.wait(5)
            body = b'{"inputs": ["b", "b", "b"]}'
            with serving.connect() as gone:
                gone.sendall(head(len(body)) + body)
                while model.engine.waiting < 3:
                    time.sleep(0.005)
            end = time.monotonic() + 5
            while model.engine.waiting and time.monotonic() < end:
                time.sleep(0.005)
            assert model.engine.waiting == 0
        finally:
            runner.gate.set()
        assert first.result(10).status_code == 200


def test_a_poisoned_row_fails_alone_and_its_payload_is_not_told(serving: Serving, client: Any) -> None:
    runner = serving.runner("text")
    with serving.models.lease("text") as model:
        poison = int(model.encode([{"text": "Q"}])[0]["input_ids"][1])
    runner.poison = poison
    runner.entered.clear()
    runner.gate.clear()
    with ThreadPoolExecutor(8) as pool:
        try:
            pool.submit(client.post, "/predict", json={"text": "the hold"})
            assert runner.entered.wait(5)
            good = [pool.submit(client.post, "/predict", json={"text": f"the word {i}"}) for i in range(4)]
            bad = pool.submit(client.post, "/predict", json={"text": "Q"})
            with serving.models.lease("text") as model:
                while model.engine.waiting < 5:
                    time.sleep(0.005)
            runner.gate.set()
            assert [each.result(10).status_code for each in good] == [200] * 4
            assert bad.result(10).status_code == 500
            assert "secret" not in bad.result().text
        finally:
            runner.poison = None
            runner.gate.set()


def test_models_are_changed_only_where_that_is_allowed(client: Any) -> None:
    assert client.post("/v2/repository/models/text/load", json={}).status_code == 403
    assert client.post("/v2/repository/models/text/unload").status_code == 403


def test_request_ids_come_back(client: Any) -> None:
    assert client.get("/v2", headers={"x-request-id": "mine-1"}).headers["x-request-id"] == "mine-1"
    assert client.get("/v2", headers={"x-request-id": "a b"}).headers["x-request-id"] != "a b"


def test_metrics_count_what_happened(client: Any) -> None:
    def value(name: str) -> float:
        lines = [line for line in client.get("/metrics").text.splitlines() if line.startswith(name)]
        return float(lines[0].rpartition(" ")[2]) if lines else 0.0

    counter = 'limbeck_requests_total{code="200",protocol="http",route="/predict"}'
    before = value(counter), value('limbeck_tokens_total{model="text",version="1"}')
    client.post("/predict", json={"text": "the word1"})
    after = value(counter), value('limbeck_tokens_total{model="text",version="1"}')
    assert after[0] == before[0] + 1
    assert after[1] > before[1]


def test_answers_never_cross_between_callers(client: Any, folders: dict[str, Path]) -> None:
    texts = [f"the {'word' * (i % 7)} {i} of {i * i}" for i in range(64)]
    student = load_student(folders["text"])
    expected = student.logits(student.encode([Sample(str(i), {"text": t}) for i, t in enumerate(texts)]))
    found: dict[int, Any] = {}
    lock = threading.Lock()

    def ask(i: int) -> None:
        answer = infer(client, [text_input(texts[i])], outputs=[{"name": "logits"}]).json()
        with lock:
            found[i] = answer["outputs"][0]["data"]

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(ask, range(64)))
    np.testing.assert_allclose([found[i] for i in range(64)], expected, atol=1e-4)
