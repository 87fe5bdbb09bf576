"""`limbeck list`: the parts by kind."""

from __future__ import annotations

from dataclasses import fields

import pytest
from typer.testing import CliRunner

from limbeck.cli import app
from limbeck.cli.list import Kind
from limbeck.core.errors import RecipeError
from limbeck.core.parts import KINDS, find, names, reference, summary


def test_every_kind_can_be_listed() -> None:
    assert {kind.part for kind in Kind} == set(KINDS)


def listed(monkeypatch: pytest.MonkeyPatch, *args: str, columns: int = 400) -> str:
    monkeypatch.setenv("COLUMNS", str(columns))
    done = CliRunner().invoke(app, ["list", *args])
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize("kind", list(Kind))
def test_a_line_for_every_part(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [line.split(maxsplit=1) for line in listed(monkeypatch, kind).splitlines() if not line.endswith(":")]
    assert sorted(row[0] for row in rows) == list(names(kind.part))
    for name, text in rows:
        assert text.strip() == summary(find(kind.part, name))


def test_objectives_stand_by_what_they_read(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = listed(monkeypatch, "objectives").splitlines()
    places = {title: lines.index(f"{title}:") for title in ("distribution", "features", "relational")}
    at = {line.split()[0]: i for i, line in enumerate(lines)}
    assert places["distribution"] < at["kl"] < places["features"] < at["hidden"] < places["relational"] < at["rkd"]


@pytest.mark.parametrize("kind", list(Kind))
def test_all_that_is_known_of_a_part(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = listed(monkeypatch, kind, "--long")
    for name in names(kind.part):
        part = find(kind.part, name)
        told = [summary(part), ", ".join(f.name for f in fields(part)), reference(part)]  # type: ignore[arg-type]
        assert all(text in whole for text in told)
    one = listed(monkeypatch, kind, name)
    assert all(text in one for text in told)
    assert one in whole


def test_an_unknown_part(monkeypatch: pytest.MonkeyPatch) -> None:
    done = CliRunner().invoke(app, ["list", "objectives", "kll"])
    assert isinstance(done.exception, RecipeError)
    assert "did you mean 'kl'" in str(done.exception)


def test_a_narrow_terminal_folds_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    output = CliRunner().invoke(app, ["list", "objectives", "--long"]).output
    output += CliRunner().invoke(app, ["list", "objectives"]).output
    assert max(map(len, output.splitlines())) <= 60
    assert "…" not in output
