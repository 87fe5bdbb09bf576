"""`limbeck schema`: the recipe's JSON schema."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from limbeck.cli import app
from limbeck.core.recipe import Recipe
from tests.cli.command import inside, refused


def test_it_is_printed() -> None:
    done = CliRunner().invoke(app, ["schema"])
    assert done.exit_code == 0
    assert json.loads(done.stdout) == Recipe.model_json_schema()


def test_it_is_written_and_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "limbeck.schema.json"
    path.write_text("an older one")
    done = CliRunner().invoke(app, ["schema", "-o", str(path)])
    assert (done.exit_code, done.stdout) == (0, "")
    assert json.loads(path.read_text()) == Recipe.model_json_schema()
    assert [p.name for p in tmp_path.iterdir()] == ["limbeck.schema.json"]


def test_a_folder_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(inside(monkeypatch, "schema", "-o", str(tmp_path)), "Is a directory", str(tmp_path))
