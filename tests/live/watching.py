"""Folders of runs made by hand, at any moment of their lives."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BEGINNING = 1_700_000_000
RECIPE: dict[str, Any] = {
    "output": "run",
    "teacher": {"model": None, "finetune": {}},
    "generate": [],
    "cache": None,
    "baseline": True,
    "report": {"title": "Sums: a large one teaches a small one", "language": "en"},
}


def run(path: Path, **changed: Any) -> Path:
    """A folder that has a recipe and nothing else; the recipe is older than what is begun."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "recipe.json").write_text(json.dumps({**RECIPE, **changed}))
    os.utime(path / "recipe.json", (BEGINNING - 1, BEGINNING - 1))
    return path


def done(path: Path, *steps: str) -> None:
    """Steps that have come to their end; their logs stay."""
    for step in steps:
        partial = path / f".{step}.partial"
        if partial.exists():
            partial.rename(path / step)
            (path / f".{step}.fingerprint").unlink()
        (path / step).mkdir(exist_ok=True)
        (path / step / "manifest.json").write_text(json.dumps({"kind": step, "seconds": 62.0}))


def begun(path: Path, step: str, at: float = 0.0) -> Path:
    """A step at work, as `limbeck.core.artifacts` leaves it; `at` is when, later than others."""
    partial = path / f".{step}.partial"
    partial.mkdir(exist_ok=True)
    mark = path / f".{step}.fingerprint"
    mark.write_text("x")
    os.utime(mark, (BEGINNING + at, BEGINNING + at))
    return partial


def plan(folder: Path, *stages: tuple[str, int], title: str = "student", unit: str = "tokens") -> None:
    """What a training says of itself at its start."""
    told = [{"name": name, "steps": steps, "eval_steps": 5} for name, steps in stages]
    folder.mkdir(exist_ok=True)
    (folder / "plan.json").write_text(json.dumps({"title": title, "unit": unit, "stages": told}))


def row(step: int, stage: str = "distil", **changed: Any) -> dict[str, Any]:
    """A line of `steps.jsonl`."""
    terms = {"cross_entropy": 2.0 / step, "kl": 4.0 / step}
    line = {"step": step, "stage": stage, "terms": terms, "loss": 3.0 / step, "grad_norm": 1.5}
    return {**line, "learning_rate": 0.01, "units": 100, "seconds": 0.5, **changed}


def rows(first: int, last: int, stage: str = "distil") -> list[dict[str, Any]]:
    """Lines of steps one after the other; the first one tells the memory."""
    memory = {"resident": 700_000_000, "gpu_peak": 3_000_000_000}
    return [row(i, stage, **({"memory": memory} if i == first else {})) for i in range(first, last + 1)]


def evaluated(step: int, best: bool = True, **metrics: float) -> dict[str, Any]:
    """A line of `evals.jsonl`."""
    return {"step": step, "stage": "distil", "metrics": {"loss": 1.0 / step, **metrics}, "best": best}


def answered(step: int, student: str = "1+1=3.", teacher: str | None = "1+1=2.", **changed: Any) -> dict[str, Any]:
    """A line of `generations.jsonl`."""
    given = {"id": "row-7", "prompt": "What is 1+1?", "reference": "It is 2."}
    told = {**given, "teacher": teacher, "student": student, "finished": True, **changed}
    return {"step": step, "stage": "distil", "answers": [told]}


def add(path: Path, lines: Sequence[Any]) -> None:
    """Lines at the end of a log."""
    with path.open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


@contextmanager
def held(path: Path) -> Iterator[None]:
    """A process that holds the run's lock, until it is killed at the end."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    owner = path / ".lock.owner"
    try:
        owner.write_text(str(process.pid))
        yield
    finally:
        process.kill()
        process.wait()


def under_way(path: Path) -> Path:
    """A run in the middle of its student's training, with all that can be shown."""
    run(path)
    done(path, "prepare")
    plan(path / "prepare", ("finetune", 4), title="teacher")
    add(path / "prepare" / "steps.jsonl", rows(1, 4, "finetune"))
    add(path / "prepare" / "evals.jsonl", [evaluated(4)])
    folder = begun(path, "train")
    plan(folder, ("warm", 6), ("distil", 14))
    add(folder / "steps.jsonl", [*rows(1, 6, "warm"), *rows(7, 10)])
    add(folder / "evals.jsonl", [evaluated(5), evaluated(10, best=False)])
    add(folder / "generations.jsonl", [answered(5, "1+1=11."), answered(10)])
    return path
