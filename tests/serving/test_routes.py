"""The routes of inference: how they are found, and what of a request the model has no place for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.serving.serving import TOKEN, make_picture, make_text, running
from tests.serving.test_http import infer, png, text_input

httpx = pytest.importorskip("httpx")
pytest.importorskip("fastapi")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {"text": make_text(root / "text"), "picture": make_picture(root / "picture")}


@pytest.fixture(scope="module")
def client(folders: dict[str, Path]) -> Iterator[Any]:
    headers = {"authorization": f"Bearer {TOKEN}"}
    with (
        running(folders, grpc_port=None) as made,
        httpx.Client(base_url=made.url, headers=headers, timeout=20) as asked,
    ):
        yield asked


def test_numbers_that_the_model_has_no_place_for_are_refused(client: Any, folders: dict[str, Path]) -> None:
    """On a GPU they would end the process, and every caller's answer with it."""
    config = json.loads((folders["text"] / "config.json").read_text())
    words, positions = config["vocab_size"], config["max_position_embeddings"]

    def status(ids: list[int], **other: int) -> tuple[int, str]:
        given = {name: [value] * len(ids) for name, value in {"attention_mask": 1, **other}.items()}
        own = [
            {"name": name, "shape": [1, len(ids)], "datatype": "INT64", "data": data}
            for name, data in {"input_ids": ids, **given}.items()
        ]
        answer = infer(client, own)
        return answer.status_code, str(answer.json().get("error"))

    assert status([1, words - 1])[0] == 200
    told = f"a value of `input_ids` is beyond the model's table; got: {words}; allowed: 0 to {words - 1}"
    assert status([1, words]) == (400, told)
    assert status([-1, 1])[0] == 400
    assert status([1] * positions)[0] == 200
    told = f"a row is longer than the model has positions; got: {positions + 1}; allowed: {positions}"
    assert status([1] * (positions + 1)) == (400, told)


def test_a_number_with_thousands_of_digits_is_no_number(client: Any) -> None:
    for digits in ("9" * 5000, "\u0663", "-1", "x"):
        answer = client.post("/predict", data={"top_k": digits, "model": "picture"}, files={"image": png()})
        assert answer.status_code == 400, answer.text
        assert "top_k" in answer.json()["error"]


def test_the_routes_of_inference_are_documented_and_counted_by_their_names(client: Any) -> None:
    """They are found before the application's own routing."""
    paths = client.get("/openapi.json").json()["paths"]
    assert paths["/predict"]["post"]["operationId"] == "predict_predict_post"
    for path in ("/v2/models/{model_name}/infer", "/v2/models/{model_name}/versions/{model_version}/infer"):
        asked = path.format(model_name="text", model_version="1")
        assert client.post(asked, json={"inputs": [text_input("a")]}).status_code == 200
        assert f'route="{path}"' in client.get("/metrics").text
        assert "post" in paths[path]
        assert client.get(asked).status_code == 405
    assert client.post("/v2/models/text/versions/7/infer", json={"inputs": [text_input("a")]}).status_code == 404
    assert client.post("/predict", content=b"a", headers={"content-type": "text/plain"}).status_code == 415
