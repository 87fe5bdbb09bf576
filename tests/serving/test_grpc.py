"""The server over gRPC, called with plain grpc and our own messages."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from limbeck.core.types import Sample
from limbeck.runtime.student import load_student
from tests.serving.serving import LABELS, TOKEN, Serving, make_picture, make_text, running

grpc = pytest.importorskip("grpc")
pytest.importorskip("fastapi")
AUTH = (("authorization", f"Bearer {TOKEN}"),)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {"text": make_text(root / "text"), "picture": make_picture(root / "picture")}


@pytest.fixture(scope="module")
def serving(folders: dict[str, Path]) -> Iterator[Serving]:
    with running(folders, max_body=200_000, limits={"max_queue": 16}) as made:
        yield made


class Caller:
    """The protocol's calls by name."""

    def __init__(self, channel: Any):
        from limbeck.serving.protos import SERVICE, methods

        for name, (asked, answer) in methods().items():
            call = channel.unary_unary(
                f"/{SERVICE}/{name}",
                request_serializer=asked.SerializeToString,
                response_deserializer=answer.FromString,
            )
            setattr(self, name, self._with_defaults(call, asked))

    def _with_defaults(self, call: Any, asked: Any) -> Any:
        def made(metadata: Any = AUTH, timeout: float = 20, **fields: Any) -> Any:
            return call(asked(**fields), metadata=metadata, timeout=timeout)

        made.future = lambda **fields: call.future(asked(**fields), metadata=AUTH, timeout=20)  # type: ignore[attr-defined]
        return made

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)


@pytest.fixture(scope="module")
def caller(serving: Serving) -> Iterator[Caller]:
    with grpc.insecure_channel(serving.grpc) as channel:
        yield Caller(channel)


def texts(*values: str) -> list[dict[str, Any]]:
    contents = {"bytes_contents": [value.encode() for value in values]}
    return [{"name": "text", "datatype": "BYTES", "shape": [len(values)], "contents": contents}]


def refused(call: Any, **fields: Any) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as error:
        call(**fields)
    return error.value.code().name, error.value.details()


def test_health_and_metadata(caller: Caller) -> None:
    assert caller.ServerLive(metadata=()).live
    assert caller.ServerReady().ready
    assert caller.ModelReady(name="text", version="1").ready
    assert caller.ServerMetadata().name == "limbeck"
    told = caller.ModelMetadata(name="picture")
    assert [(each.name, each.datatype) for each in told.inputs] == [("image", "BYTES"), ("pixel_values", "FP32")]
    assert [each.name for each in caller.RepositoryIndex().models] == ["text", "picture"]


def test_texts_and_raw_tokens_get_the_same_logits(caller: Caller, folders: dict[str, Path]) -> None:
    student = load_student(folders["text"])
    features = student.encode([Sample("0", {"text": "the word1 of 7"}), Sample("1", {"text": "of"})])
    expected = student.logits(features)
    answer = caller.ModelInfer(model_name="text", id="mine", inputs=texts("the word1 of 7", "of"))
    assert answer.id == "mine"
    outputs = {each.name: each.contents for each in answer.outputs}
    np.testing.assert_allclose(np.reshape(outputs["logits"].fp32_contents, (2, 3)), expected, atol=1e-5)
    assert [value.decode() for value in outputs["label"].bytes_contents] == [LABELS[i] for i in expected.argmax(1)]
    arrays = student.arrays(features)
    inputs = [{"name": k, "datatype": "INT64", "shape": v.shape} for k, v in arrays.items()]
    raw = caller.ModelInfer(
        model_name="text",
        inputs=inputs,
        raw_input_contents=[v.tobytes() for v in arrays.values()],
        outputs=[{"name": "logits"}],
    )
    found = np.frombuffer(raw.raw_output_contents[0], "<f4").reshape(2, 3)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_what_is_wrong_is_told_by_code(caller: Caller) -> None:
    infer = caller.ModelInfer
    assert refused(infer, model_name="none", inputs=texts("a"))[0] == "NOT_FOUND"
    assert refused(infer, model_name="text")[0] == "INVALID_ARGUMENT"
    assert refused(infer, model_name="text", inputs=texts("a"), metadata=())[0] == "UNAUTHENTICATED"
    wrong = (("authorization", "Bearer wrong"),)
    assert refused(caller.ServerMetadata, metadata=wrong)[0] == "UNAUTHENTICATED"
    assert refused(caller.RepositoryModelUnload, model_name="text")[0] == "PERMISSION_DENIED"
    shape = [{**texts("a")[0], "shape": [-1]}]
    assert refused(infer, model_name="text", inputs=shape)[0] == "INVALID_ARGUMENT"
    both = {"model_name": "text", "inputs": texts("a"), "raw_input_contents": [b"\1\0\0\0a"]}
    assert refused(infer, **both)[0] == "INVALID_ARGUMENT"
    field = [{"name": "input_ids", "datatype": "INT64", "shape": [1, 1], "contents": {"int_contents": [1]}}]
    assert refused(infer, model_name="text", inputs=field) == (
        "INVALID_ARGUMENT",
        "values of `input_ids` are in int_contents; allowed: int64_contents",
    )
    large = texts("a" * 300_000)
    assert refused(infer, model_name="text", inputs=large)[0] == "RESOURCE_EXHAUSTED"


def test_of_a_stranger_no_message_is_read(caller: Caller) -> None:
    large = texts("a" * 300_000)  # above what is read of anybody
    assert refused(caller.ModelInfer, model_name="text", inputs=large, metadata=())[0] == "UNAUTHENTICATED"


def test_a_full_queue_a_deadline_and_a_cancelled_call(serving: Serving, caller: Caller) -> None:
    runner = serving.runner("text")
    runner.entered.clear()
    runner.gate.clear()
    with ThreadPoolExecutor(1) as pool, serving.models.lease("text") as model:
        try:
            first = pool.submit(caller.ModelInfer, model_name="text", inputs=texts("a"))
            assert runner.entered.wait(5)
            late = {"model_name": "text", "inputs": texts("b"), "timeout": 0.2}
            assert refused(caller.ModelInfer, **late)[0] == "DEADLINE_EXCEEDED"
            gone = caller.ModelInfer.future(model_name="text", inputs=texts(*"cccccccccc"))
            wait_for(lambda: model.engine.waiting == 10)
            full = {"model_name": "text", "inputs": texts(*"dddddddddd")}
            assert refused(caller.ModelInfer, **full)[0] == "RESOURCE_EXHAUSTED"
            gone.cancel()
            wait_for(lambda: model.engine.waiting == 0)
        finally:
            runner.gate.set()
        assert len(first.result(10).outputs) == 4


def wait_for(true: Any) -> None:
    end = time.monotonic() + 5
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_calls_in_flight_are_finished_when_the_server_stops(folders: dict[str, Path]) -> None:
    with running({"text": folders["text"]}) as serving, grpc.insecure_channel(serving.grpc) as channel:
        runner, calls = serving.runner(), Caller(channel)
        runner.entered.clear()
        runner.gate.clear()
        answers = [calls.ModelInfer.future(model_name="text", inputs=texts(f"the {i}")) for i in range(8)]
        with serving.models.lease() as model:
            wait_for(lambda: model.engine.waiting == 7)
        stopping = threading.Thread(target=serving.stop)
        stopping.start()
        wait_for(lambda: not serving.models.ready)
        runner.gate.set()
        assert all(len(each.result().outputs) == 4 for each in answers)
        stopping.join(20)
        assert serving.finished is True


def test_the_descriptor_is_made_from_the_definition() -> None:
    pytest.importorskip("grpc_tools")
    from limbeck.serving.protos import DESCRIPTOR
    from limbeck.serving.protos.__main__ import compiled

    assert DESCRIPTOR.read_text(encoding="utf-8") == compiled()
