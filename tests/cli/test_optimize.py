"""`limbeck optimize`: what is asked for, and the table that is printed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from limbeck.cli import app
from limbeck.core.artifacts import seal
from tests.cli.command import inside, refused

TIMES = {"p10": 0.5, "p50": 0.56, "p90": 0.7, "cpu": 0.55}
LINES: list[dict[str, Any]] = [
    {
        **{"pass": "as it is", "became": "", "gain": None, "operators": 110, "launches": None, "bytes": 5_100_000},
        **{"cache_bytes": None, "milliseconds": {"1": TIMES, "8": {**TIMES, "p50": 4.4}}, "per_second": 1818.0},
        **{"max_difference": 0.0, "relative": 0.0, "same_answers": 1.0, "answers": 64},
    },
    {"pass": "fuse_mlp", "became": "does not apply: the model has no gate"},
]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """What was asked for; an artifact is left, and nothing else is done."""
    seen: dict[str, Any] = {}

    def optimize(where: Path, passes: Any, **given: Any) -> Path:
        seen.update(where=where, passes=passes, **given)
        made = tmp_path / "made"
        made.mkdir()
        facts = {"kept": ["fuse_qkv"], "speedup": 1.21, "rows": 64, "notes": ["made-up rows"], "batch_size": 8}
        seal(made, {**facts, "engine": "onnxruntime", "passes": LINES})
        return made

    monkeypatch.setattr("limbeck.pipeline.api.optimize", optimize)
    return seen


def test_passes_and_settings_arrive_and_a_table_is_printed(asked: dict[str, Any], tmp_path: Path) -> None:
    words = ["optimize", str(tmp_path), "--passes", "fuse_qkv", "--passes", "{type: fuse_norms, keep: true}"]
    done = CliRunner().invoke(app, [*words, "--set", "runs=3", "--force"], env={"COLUMNS": "300"})

    assert done.exit_code == 0, done.output
    assert asked["passes"] == ["fuse_qkv", {"type": "fuse_norms", "keep": True}]
    assert (asked["runs"], asked["force"], asked["rows"], asked["task"]) == (3, True, None, None)
    lines = done.stdout.replace("\N{NO-BREAK SPACE}", " ").splitlines()
    assert [word in lines[0] for word in ("Pass", "Operators", "1 row", "8 rows", "Same answers")] == [True] * 5
    assert "Kernel launches" not in lines[0]  # a column that holds nothing
    assert [word in lines[1] for word in ("as it is", "110", "0.56 ms", "4.4 ms", "1,818", "100.0 %")] == [True] * 6
    assert "0.50 ms to 0.70 ms; CPU 0.55 ms" in lines[2]
    assert "does not apply: the model has no gate" in done.stdout
    assert lines[-2:] == [
        "kept fuse_qkv; 1.21 times as fast, 64 rows compared",
        f"student  {tmp_path}/made/student",
    ]
    assert "note: made-up rows" in done.stderr


def test_left_out_passes_are_the_recipes(asked: dict[str, Any], tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["optimize", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert asked["passes"] is None


def test_mistakes_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(inside(monkeypatch, "optimize", str(tmp_path / "nowhere")), "is no folder")
    refused(inside(monkeypatch, "optimize", str(tmp_path), "--set", "runs"), "a setting is KEY=VALUE")
    refused(inside(monkeypatch, "optimize", str(tmp_path), "--passes", "fuse_qvk"), "did you mean 'fuse_qkv'?")


def test_the_help_has_an_example() -> None:
    done = CliRunner().invoke(app, ["optimize", "--help"], env={"COLUMNS": "120"})
    assert "Example: limbeck optimize runs/mine" in done.stdout
