"""schemathesis against the OpenAPI document and the server that it tells of."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.serving.serving import TOKEN, make_picture, make_text, running

pytest.importorskip("fastapi")


@pytest.mark.slow
@pytest.mark.parametrize("first", ["text", "picture"])
def test_schemathesis_finds_nothing(tmp_path: Path, first: str) -> None:
    script = Path(sys.executable).with_name("schemathesis")
    if not script.exists():
        pytest.skip("schemathesis is not installed")
    folders = {"text": make_text(tmp_path / "text"), "picture": make_picture(tmp_path / "picture")}
    folders = dict(sorted(folders.items(), key=lambda pair: pair[0] != first))
    words = ["-c", "all", "--max-examples", "40", "--continue-on-failure", "--warnings", "off", "--seed", "1"]
    if first == "picture":  # that a text is a picture in base64, a schema cannot say
        words += ["--exclude-checks", "positive_data_acceptance"]
    with running(folders, allow_load=True) as serving:
        command = [script, "run", f"{serving.url}/openapi.json", "-H", f"Authorization: Bearer {TOKEN}", *words]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=500)
    assert done.returncode == 0, done.stdout
