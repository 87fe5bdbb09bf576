"""`limbeck list`: the parts by kind."""

from __future__ import annotations

from dataclasses import fields

import pytest
from typer.testing import CliRunner

from limbeck.cli import app
from limbeck.cli.list import Kind
from limbeck.core.parts import KINDS, find, names, reference, summary


def test_every_kind_can_be_listed() -> None:
    assert {kind.removesuffix("s") for kind in Kind} == set(KINDS)


@pytest.mark.parametrize("kind", list(Kind))
def test_a_line_for_every_part(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    done = CliRunner().invoke(app, ["list", kind])
    assert done.exit_code == 0
    lines = {line.split()[0]: line for line in done.output.splitlines()[1:] if line.strip()}
    assert list(lines) == list(names(kind.removesuffix("s")))
    for name, line in lines.items():
        part = find(kind.removesuffix("s"), name)
        assert summary(part) in line
        assert reference(part) in line
        for field in fields(part):  # type: ignore[arg-type]
            assert field.name in line


def test_a_narrow_terminal_folds_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    output = CliRunner().invoke(app, ["list", "objectives"]).output
    assert max(map(len, output.splitlines())) <= 60
    assert "…" not in output
