"""`limbeck doctor`: a table, or JSON, and a status that says whether there is an error."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.command import inside, refused
from tests.doctor.made import changed_scores, leave, score


def test_a_healthy_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = inside(monkeypatch, "doctor", str(leave(tmp_path / "run")))
    assert done.returncode == 0
    assert "0 error, 0 warning" in done.stdout


def test_a_sick_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lost = score("student", "student_minus_baseline", -0.05, -0.08, -0.02)
    done = inside(monkeypatch, "doctor", str(leave(tmp_path / "run", scores=changed_scores(lost))), "--json")
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert [each["check"] for each in found if each["severity"] == "error"] == ["baseline_better"]
    assert set(found[0]) == {"check", "severity", "reason", "evidence", "change"}


def test_a_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "task: image-classification\noutput: out\nstudent: {config: {model_type: resnet}}\n"
        "data: {train: nothing.npz}\nstages: [{name: learn, terms: [cross_entropy]}]\n"
    )
    done = inside(monkeypatch, "doctor", str(path), "seed=1")
    assert done.returncode == 1
    assert "nothing.npz" in "".join(done.stdout.split())
    assert "1 error" in done.stdout


def test_what_does_not_go_with_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = str(leave(tmp_path / "run"))
    refused(inside(monkeypatch, "doctor", run, "--probe"), "--probe")
    refused(inside(monkeypatch, "doctor", str(tmp_path)), "is no run")
