"""What `limbeck play` refuses before it loads anything."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.cli.command import inside, refused

pytest.importorskip("fastapi", reason="fastapi is not installed")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--host", "0.0.0.0"], "there is no token to keep them out"),
        (["--token", "short"], "too easily guessed"),
        (["--language", "fr"], "not written in that language"),
        (["--model", "a"], "wants NAME=VALUE"),
        (["--api-key-env", "KEY"], "would have no effect"),
    ],
)
def test_a_mistake_is_told(options: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(inside(monkeypatch, "play", str(tmp_path), *options), sentence)


def test_a_folder_that_is_no_run_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(inside(monkeypatch, "play", str(tmp_path)), "has no trained student")


def test_a_missing_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from limbeck.core.errors import MissingExtra

    for name in [name for name in sys.modules if name.startswith("limbeck.live.server")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "fastapi", None)
    with pytest.raises(MissingExtra, match=r"pip install 'limbeck\[live\]'"):
        import limbeck.live.server  # noqa: F401
