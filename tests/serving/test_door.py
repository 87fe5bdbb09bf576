"""Who is let in without a token, and what pictures."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from tests.serving.serving import make_picture, running

httpx = pytest.importorskip("httpx")
pytest.importorskip("fastapi")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_picture(tmp_path_factory.mktemp("models") / "picture")


def test_without_a_token_this_machine_is_asked_by_its_own_name(folder: Path) -> None:
    with running({"picture": folder}, token=None) as open_, httpx.Client(base_url=open_.url) as anybody:

        def status(path: str = "/v2", **headers: str) -> int:
            return int(anybody.get(path, headers=headers).status_code)

        assert [status(), status(host="localhost:1"), status(host="[::1]:8000")] == [200] * 3
        assert status(origin="http://localhost:3000") == 200
        # A page with a name that leads here, a page that sends forms, and what is no name at all.
        assert [status(host="evil.example"), status(origin="https://evil.example"), status(origin="null")] == [403] * 3
        assert [status(host="127.0.0.1.evil.example"), status(host="[")] == [403] * 2
        assert status("/v2/health/live", host="10.0.0.1") == 200


def test_pictures_are_of_usual_kinds_and_sizes(folder: Path) -> None:
    bomb, program, good = io.BytesIO(), io.BytesIO(), io.BytesIO()
    Image.new("1", (8000, 8000)).save(bomb, "PNG")
    Image.new("L", (8, 8)).save(program, "EPS")  # Pillow hands it to Ghostscript
    assert len(bomb.getvalue()) < 100_000
    Image.new("L", (8, 8)).save(good, "PNG")
    with running({"picture": folder}, token=None) as open_, httpx.Client(base_url=open_.url, timeout=20) as anybody:
        answers = [anybody.post("/predict", files={"image": each.getvalue()}) for each in (bomb, program, good)]
    assert [each.status_code for each in answers] == [413, 400, 200]
