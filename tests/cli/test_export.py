"""`limbeck export`: what is printed, and mistakes that are told at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from limbeck.cli import app
from limbeck.core import artifacts
from tests.cli.command import inside, refused
from tests.runtime.students import BERT, TEXT, student


def test_help_has_examples() -> None:
    done = CliRunner().invoke(app, ["export", "--help"])
    assert done.exit_code == 0
    assert "Example: limbeck export" in " ".join(done.output.split())


def test_a_folder_is_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    student(tmp_path / "model", TEXT, BERT)
    to = "{type: hugging_face, precision: bf16, name: small}"
    words = ("export", str(tmp_path / "model"), "--to", "hugging-face", "--to", to, "-o", str(tmp_path / "out"))
    done = inside(monkeypatch, *words)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["hugging_face", "small"]
    assert "same answers 100.0%" in lines[0]
    assert str(tmp_path / "out" / "small") in lines[1]
    assert done.stderr.count("note: compared on made-up rows") == 2
    assert artifacts.load(tmp_path / "out" / "small").manifest["precision"] == "bf16"


def test_mistakes_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(inside(monkeypatch, "export", str(tmp_path / "nowhere"), "--to", "onnx"), "is no folder")
    refused(inside(monkeypatch, "export", str(tmp_path), "--to", "{"), "--to is not valid YAML")
    refused(inside(monkeypatch, "export", str(tmp_path), "--to", "onnx"), "there is no student")
    refused(inside(monkeypatch, "export", str(tmp_path), "--to", "omnx"), "did you mean 'onnx'")
