"""`limbeck watch` in the browser: a run's folder as a page that keeps up with it.

GET /?training=MODEL&step=STEP        the page, whole; it can be read without a script
GET /parts?training=MODEL&step=STEP   its parts, {id: {html, version}}, without those whose version is in &known=A,B
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from fastapi import FastAPI
from fastapi.responses import HTMLResponse, JSONResponse

from limbeck.live.curves import Drawer
from limbeck.live.figures import called, figures, phase, progress, step_time, words
from limbeck.live.folder import Folder, State, Training
from limbeck.live.server import Door, new_app, page, rendered
from limbeck.report.metrics import name_of, value_text
from limbeck.report.words import Words

LAST = 8
"""Validations that the table shows."""

Parts = dict[str, str]


@dataclass(frozen=True)
class Look:
    """What a visitor wants to see.

    Attributes:
        training: a model's name; None follows the training under way.
        step: the validation whose answers are shown; None follows the last.
    """

    training: str | None = None
    step: int | None = None

    def link(self, **changed: Any) -> str:
        """The address of another look."""
        wanted = {**vars(self), **changed}
        return "?" + urlencode({name: value for name, value in wanted.items() if value is not None})


class Watcher:
    """A run's folder as the parts of a page.

    Args:
        folder: the run.
    """

    def __init__(self, folder: Folder):
        self.folder = folder
        self._lock = threading.Lock()
        self._drawers: dict[str, Drawer] = {}

    def look(self, look: Look) -> tuple[State, Words, Parts]:
        """The run now, the words of its language, and the HTML of each part."""
        with self._lock:  # visitors come on threads of their own
            state = self.folder.state()
            say = words(state.language)
            chosen = next((each for each in state.trainings if each.model == look.training), state.current)
            shown: dict[str, Mapping[str, Any]] = {
                "phase": {"sentence": phase(state, say), "page": _report(state)},
                "chain": {"steps": [(say(f"watch.step.{s.name}"), s, step_time(s, say)) for s in state.steps]},
                "trainings": {"tabs": _tabs(state, chosen, look, say)},
                **self._of(state, chosen, look, say),
            }
            return state, say, {id: self._part(id, say, values) for id, values in shown.items()}

    def _of(self, state: State, chosen: Training | None, look: Look, say: Words) -> dict[str, Mapping[str, Any]]:
        """What is shown of one training."""
        if chosen is None:
            return {name: {} for name in ("figures", "curves", "answers", "evals")}
        drawer = self._drawers.setdefault(say.language, Drawer(say))
        return {
            "figures": {
                "figures": figures(chosen, say),
                "share": progress(chosen),
                "label": say("watch.progress", model=called(chosen.model, say)),
            },
            "curves": {"plots": drawer.plots(chosen, state.trainings)},
            "answers": _answers(chosen, look, say),
            "evals": _evals(chosen, say),
        }

    @staticmethod
    def _part(id: str, say: Words, values: Mapping[str, Any]) -> str:
        empty: dict[str, Any] = {"share": None, "figures": (), "plots": (), "chosen": None, "lines": ()}
        return rendered("watch_part.html.j2", say, part=id, **{**empty, **values}).strip()


def watch_app(folder: Folder, door: Door) -> FastAPI:
    """The application of one run.

    Args:
        folder: the run.
        door: who may come in.
    """
    app, watcher = new_app(door), Watcher(folder)

    @app.get("/")
    def whole(training: str | None = None, step: int | None = None) -> HTMLResponse:
        state, say, parts = watcher.look(Look(training, step))
        return page("watch.html.j2", say, state=state, parts=parts)

    @app.get("/parts")
    def parts(training: str | None = None, step: int | None = None, known: str = "") -> JSONResponse:
        shown, there = watcher.look(Look(training, step))[2], known.split(",")
        now = {id: {"html": html, "version": _version(id, html)} for id, html in shown.items()}
        return JSONResponse({id: part for id, part in now.items() if part["version"] not in there})

    return app


def _version(id: str, html: str) -> str:
    return hashlib.sha256(f"{id}:{html}".encode()).hexdigest()[:16]


def _report(state: State) -> str | None:
    done = any(step.name == "report" and step.state == "done" for step in state.steps)
    return str(state.path / "report" / "index.html") if done else None


def _tabs(state: State, chosen: Training | None, look: Look, say: Words) -> list[tuple[str, str, str, bool]]:
    return [
        (each.model, look.link(training=each.model, step=None), called(each.model, say), each is chosen)
        for each in state.trainings
    ]


def _answers(training: Training, look: Look, say: Words) -> dict[str, Any]:
    """A validation's answers, and where to find those before and after it."""
    told = training.answers
    if not told:
        return {}
    steps = [each["step"] for each in told]
    at = steps.index(look.step) if look.step in steps else len(told) - 1
    links = []
    if at > 0:
        links.append(("earlier", look.link(training=training.model, step=steps[at - 1])))
    if at < len(told) - 1:
        links.append(("later", look.link(training=training.model, step=steps[at + 1])))
        links.append(("latest", look.link(step=None)))
    return {"chosen": told[at], "links": links, "model": called(training.model, say)}


def _evals(training: Training, say: Words) -> dict[str, Any]:
    """The last validations, the newest first."""
    rows: Sequence[Mapping[str, Any]] = training.evals[: -LAST - 1 : -1]
    names = list(dict.fromkeys(name for row in rows for name in row["metrics"]))
    lines = [
        {
            "step": f"{row['step']:,}",
            "stage": row["stage"],
            "best": row["best"],
            "cells": [value_text({"name": name, "value": row["metrics"].get(name)}, say) for name in names],
        }
        for row in rows
    ]
    return {"names": [name_of(name, say) for name in names], "lines": lines}
