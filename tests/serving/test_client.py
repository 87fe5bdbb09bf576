"""Our own clients against a running server."""

from __future__ import annotations

import asyncio
import io
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from limbeck.client import AsyncClient, Client, ServerError, _predictions
from limbeck.core.types import Sample
from limbeck.runtime.student import load_student
from tests.serving.serving import LABELS, TOKEN, Serving, make_picture, make_text, running

pytest.importorskip("fastapi")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {"text": make_text(root / "text"), "picture": make_picture(root / "picture")}


@pytest.fixture(scope="module")
def serving(folders: dict[str, Path]) -> Iterator[Serving]:
    with running(folders, limits={"max_queue": 8}) as made:
        yield made


def test_texts_pairs_and_pictures(serving: Serving, folders: dict[str, Path]) -> None:
    texts = ["the word1 of 7", "of"]
    expected = [each.label for each in load_student(folders["text"]).predict([Sample(t, {"text": t}) for t in texts])]
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8), 7, dtype=np.uint8)).save(buffer, "PNG")
    with Client(serving.url, TOKEN) as client:
        assert client.ready()
        assert [each.label for each in client.predict_many(texts, top_k=2)] == expected
        assert len(client.predict({"text": "a", "text_pair": "b"}, top_k=3).top) == 3
        assert client.predict(buffer.getvalue(), model="picture").label in LABELS
        assert [each["name"] for each in client.models()] == ["text", "picture"]


def test_what_the_server_refuses_is_an_error(serving: Serving) -> None:
    with Client(serving.url, "another-token-than-that") as client, pytest.raises(ServerError, match="401"):
        client.predict("a")
    with Client(serving.url, TOKEN) as client:
        assert not Client("http://127.0.0.1:9", TOKEN).ready()
        with pytest.raises(ServerError, match="no such model") as refused:
            client.predict("a", model="none")
        assert refused.value.status == 404


def test_whether_a_server_is_ready_is_asked_once_and_a_wrong_token_is_told(serving: Serving) -> None:
    for token, status in (("another-token-than-that", "401"), (TOKEN, "404")):
        with Client(f"{serving.url}/elsewhere", token) as lost, pytest.raises(ServerError, match=status):
            lost.ready()
    serving.models._leaving = True
    try:
        with Client(serving.url, TOKEN) as client:
            began = time.monotonic()
            assert not client.ready()
            assert time.monotonic() - began < 0.9  # no pause and no second question
    finally:
        serving.models._leaving = False
    with Client(serving.url, TOKEN) as client:
        assert client.ready()


def test_the_token_may_be_in_the_environment(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIMBECK_TOKEN", TOKEN)
    with Client(serving.url) as client:
        assert client.predict("a").label in LABELS


def test_a_busy_server_is_asked_again(serving: Serving) -> None:
    runner = serving.runner("text")
    runner.entered.clear()
    runner.gate.clear()
    found: list[str] = []
    with Client(serving.url, TOKEN, retries=5) as client, serving.models.lease("text") as model:

        def ask() -> None:
            with Client(serving.url, TOKEN) as other:
                found.append(other.predict("a").label)
                other.predict_many(["b"] * 8)

        asking = threading.Thread(target=ask)
        asking.start()
        assert runner.entered.wait(5)
        ticket = model.engine.submit([model.encode([{"text": "x"}])[0]] * 8, [3] * 8)
        with pytest.raises(ServerError, match="429"), Client(serving.url, TOKEN, retries=0) as hasty:
            hasty.predict("c")
        threading.Timer(0.3, runner.gate.set).start()
        began = time.monotonic()
        assert client.predict("c").label in LABELS
        assert time.monotonic() - began > 0.9  # as long as the server said
        ticket.future.result(5)
        asking.join(10)
    assert found


def test_many_calls_are_under_way_at_a_time(serving: Serving) -> None:
    pytest.importorskip("httpx")

    async def all_of_them() -> list[str]:
        async with AsyncClient(serving.url, TOKEN, retries=10) as client:
            answers = await asyncio.gather(*(client.predict(f"the {i}") for i in range(8)))
            return [each.label for each in answers]

    assert set(asyncio.run(all_of_them())) <= set(LABELS)


def test_a_client_lives_on_after_an_answer_that_was_too_slow(serving: Serving) -> None:
    runner = serving.runner("text")
    runner.gate.clear()
    with Client(serving.url, TOKEN, timeout=0.3, retries=0) as client:
        try:
            with pytest.raises(TimeoutError):
                client.predict("a")
        finally:
            runner.gate.set()
        client._connection.timeout = 10
        assert client.predict("b").label in LABELS


def test_whose_answer_it_is_comes_with_it() -> None:
    told = {"label": "dog", "confidence": 0.5, "top": [], "by": "student", "missed": ["teacher: timeout"]}

    (found,) = _predictions({"predictions": [told]})

    assert (found.by, found.missed) == ("student", ("teacher: timeout",))
