"""Runs of a second, trained once for all tests of the playground."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from limbeck.core.recipe import load_recipe
from limbeck.core.types import Sample
from limbeck.live.desk import Desk
from limbeck.live.models import Answer, Asked, Plan
from limbeck.live.opened import Opened
from limbeck.live.play import play_app
from limbeck.live.server import Door
from limbeck.pipeline.run import run_recipe
from tests.pipeline.recipes import images, language, texts

HERE = "http://127.0.0.1:8643"
KINDS = ("image-classification", "text-classification", "causal-lm", "structured-reasoning")


def recipe(kind: str, folder: Path) -> dict[str, Any]:
    """A recipe of a kind; its run is made in `folder/run`."""
    output = folder / "run"
    if kind == "image-classification":
        return images(output)
    if kind == "text-classification":
        return texts(output, folder / "rows.csv")
    made = language(output)
    return made if kind == "causal-lm" else {**made, "task": {"type": kind, "max_length": 192, "max_conclusions": 8}}


def trained(kind: str, folder: Path) -> Path:
    """A run, trained but not evaluated."""
    return run_recipe(load_recipe(recipe(kind, folder)), until="train").output


def opened(run: Path, **others: str) -> Opened:
    """The run as the playground has it."""
    return Opened(run, others, budget_tokens=2_000)


class Runs(dict[str, Opened]):
    """Runs by kind, each trained when it is asked for."""

    def __init__(self, factory: pytest.TempPathFactory):
        super().__init__()
        self.factory = factory
        self.folders: dict[str, Path] = {}

    def __missing__(self, kind: str) -> Opened:
        self[kind] = opened(self.folder(kind))
        return self[kind]

    def folder(self, kind: str) -> Path:
        """The run's folder; it is only read."""
        if kind not in self.folders:
            self.folders[kind] = trained(kind, self.factory.mktemp(kind))
        return self.folders[kind]


def client(run: Opened, desk: Desk | None = None, **settings: Any) -> TestClient:
    return TestClient(play_app(run, Door(), desk or Desk(), **settings), base_url=HERE)


def events(page: TestClient, **fields: Any) -> list[dict[str, Any]]:
    said = page.post("/ask", json=fields)
    assert said.status_code == 200, said.text
    return [json.loads(line) for line in said.text.splitlines()]


class Loud(Asked):
    """Says what it is told to, when it is let."""

    def __init__(self, name: str, error: Exception | None = None, paid: bool = False):
        super().__init__(name)
        self.error, self.paid = error, paid
        self.stopped: bool | None = None
        self.begun, self.may = threading.Event(), threading.Event()
        self.may.set()

    def _answer(self, sample: Sample, plan: Plan, hear: Any) -> Answer:
        self.begun.set()
        assert self.may.wait(30)
        if self.error is not None:
            raise self.error
        self.stopped = hear("so far")
        return Answer(self.name, "yes", 1.0, text="so far and on")
