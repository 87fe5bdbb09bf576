"""`limbeck watch` on the terminal, and the command line of it."""

from __future__ import annotations

import io
import json
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from rich.console import Console

from limbeck.live.folder import Folder
from limbeck.live.terminal import as_json, sparkline, view, watch_terminal
from tests.cli.command import inside, refused
from tests.live.watching import add, answered, done, held, run, under_way


def seen(path: Path, width: int = 100) -> str:
    out = Console(file=io.StringIO(), width=width, force_terminal=False)
    out.print(view(Folder(path).state()))
    return out.file.getvalue()  # type: ignore[attr-defined]


def test_one_look(tmp_path: Path) -> None:
    path = under_way(tmp_path / "run")
    with held(path):
        shown = " ".join(seen(path).replace("\u00a0", " ").split())
    for told in (
        "Sums: a large one teaches a small one Under way: train the student",
        "● prepare the teacher done 1 min 2 s",
        "▶ train the student under way",
        "○ train the baseline waiting",
        "Step 10 of 20",
        "Speed 200 tokens/s",
        "Time left of this training 5 s",
        "Loss █▄▃▂▂▂▁▁▁▁",
        "After step 10 of the stage distil",
        "Prompt What is 1+1?",
        "Teacher 1+1=2.",
        "Student 1+1=3.",
    ):
        assert told in shown, f"{told} is not in {shown}"


def test_a_run_that_has_only_begun_and_a_stopped_one(tmp_path: Path) -> None:
    assert "Nobody is at work" in seen(run(tmp_path / "new"))
    assert "■" in seen(under_way(tmp_path / "run"))


def test_text_of_models_does_not_steer_the_terminal(tmp_path: Path) -> None:
    path = under_way(tmp_path / "run")
    hostile = "[red]x[/red][/]\x1b[2J\x07" + "long " * 400
    add(path / ".train.partial" / "generations.jsonl", [answered(11, hostile, hostile, prompt=hostile)])
    shown = seen(path)
    assert not {"\x1b", "\x07"} & set(shown)
    assert "[red]x[/red]" in shown
    assert "…" in shown
    assert len(shown) < 6000


def test_json(tmp_path: Path) -> None:
    path = under_way(tmp_path / "run")
    add(path / ".train.partial" / "steps.jsonl", [{"step": 11, "stage": "distil", "loss": float("nan")}])
    with held(path):
        told = json.loads(as_json(Folder(path).state()), parse_constant=pytest.fail)
    assert (told["phase"], told["at"], told["path"]) == ("under_way", "train", str(path))
    student = told["trainings"][1]
    assert student["last"] == {"step": 11, "stage": "distil", "loss": None}
    assert (student["total"], student["last_validation"]["step"]) == (20, 10)
    assert student["last_answers"]["answers"][0]["student"] == "1+1=3."
    assert "steps" not in student


def test_curves_of_blocks() -> None:
    assert sparkline([1.0, 2.0, 3.0]) == "▁▅█"
    assert sparkline([1.0, 1.0]) == "▁▁"
    assert sparkline([1.0, None]) == ""
    assert len(sparkline(list(range(1000)))) == 60


def test_the_live_view_ends_with_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("limbeck.live.terminal.PERIOD", 0.05)
    path = under_way(tmp_path / "run")
    out = Console(file=io.StringIO(), width=100, force_terminal=False)
    last = []
    with held(path):
        watching = threading.Thread(target=lambda: last.append(watch_terminal(Folder(path), out)))
        watching.start()
        time.sleep(0.3)
        assert watching.is_alive()
        done(path, "train", "baseline", "evaluate", "report")
        (path / ".lock.owner").unlink()
        watching.join(timeout=60)
    assert [state.phase for state in last] == ["finished"]


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = under_way(tmp_path / "run")
    once = inside(monkeypatch, "watch", str(path), "--once")
    assert (once.returncode, once.stderr) == (0, "")
    assert "train the student" in once.stdout
    assert json.loads(inside(monkeypatch, "watch", str(path), "--json").stdout)["phase"] == "stopped"
    refused(inside(monkeypatch, "watch", str(tmp_path)), "is no run", "recipe.json")
    refused(inside(monkeypatch, "watch", str(path), "--host", "0.0.0.0"), "token")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        refused(inside(monkeypatch, "watch", str(path), "--port", port), port, "--port 0")


def test_without_the_extra_it_says_what_to_install(tmp_path: Path) -> None:
    """And the terminal needs none."""
    path = under_way(tmp_path / "run")
    without = "import sys; sys.modules['fastapi'] = None; from limbeck.cli import main; main()"
    for more, status, said in (((), 1, "limbeck[live]"), (("--once",), 0, "train the student")):
        command = [sys.executable, "-c", without, "watch", str(path), *more]
        made = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert made.returncode == status, made.stderr
        assert said in made.stdout + made.stderr
