"""What is said of a run at one moment, the same in the browser and on the terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from limbeck.live.folder import State, Step, Training
from limbeck.live.words import words as live_words
from limbeck.report import formats
from limbeck.report.facts import MODELS, finite, model_name
from limbeck.report.metrics import name_of, shown, value_text
from limbeck.report.words import Words
from limbeck.report.words import words as report_words


@dataclass(frozen=True)
class Figure:
    """A name and what it is now."""

    name: str
    value: str


@cache
def words(language: str) -> Words:
    """The words of this page and of the report, whose plots it shows."""
    return Words(language, {**report_words(language).table, **live_words(language).table})


def phase(state: State, say: Words) -> str:
    """How the run stands, in a sentence."""
    if state.phase == "finished":
        return say("watch.phase.finished")
    if state.at is None:
        return say("watch.phase.between")
    return say(f"watch.phase.{state.phase}", step=say(f"watch.step.{state.at}"))


def step_time(step: Step, say: Words) -> str:
    """How long a step took, or is at it in this try; empty where that says nothing."""
    if step.state == "under_way" and step.began is not None:
        return shown(max(0.0, time.time() - step.began), _whole, say)
    return shown(step.seconds, formats.duration, say) if step.state in ("done", "before") and step.seconds else ""


def _whole(seconds: float, *_: float) -> tuple[str, str]:
    """A time that passes, in whole seconds."""
    return formats.duration(seconds) if seconds >= 59.5 else (formats.fixed(seconds, 0), f"{formats.NBSP}s")


def called(model: str, say: Words) -> str:
    """A trained model's name."""
    if model in MODELS:
        return model_name(model, say)
    return say("watch.teacher_of", which=model.removeprefix("teacher-"))


def progress(training: Training) -> float | None:
    """The share of a training's steps that is done; None if their number is not known."""
    if training.total is None:
        return None
    return min(1.0, (training.last or {}).get("step", 0) / training.total)


def figures(training: Training, say: Words) -> list[Figure]:
    """The figures of a training now, those that are known."""
    return [Figure(say(f"watch.figure.{name}"), value) for name, value in _known(training, say)]


def _known(training: Training, say: Words) -> Iterator[tuple[str, str]]:
    last = training.last or {}
    if stage := last.get("stage"):
        names = [each["name"] for each in training.stages]
        several = len(names) > 1 and stage in names
        place = {"place": names.index(stage) + 1, "count": len(names)} if several else {}
        yield "stage", say("watch.figure.stage_of", name=stage, **place) if several else stage
    if "step" in last:
        step = formats.fixed(last["step"], 0)
        total = None if training.total is None else formats.fixed(training.total, 0)
        yield "step", step if total is None else say("watch.figure.step_of", step=step, total=total)
    if training.seconds_left is not None and last["step"] != training.total:
        yield "left", shown(training.seconds_left, _whole, say)
    if training.per_second is not None:
        unit = training.unit if training.unit in ("tokens", "samples") else "units"
        yield "speed", say(f"watch.figure.{unit}", value=formats.significant(training.per_second))
    if training.memory:
        held = [shown(training.memory.get("resident"), formats.size, say)]
        if "gpu_peak" in training.memory:
            held.append(say("watch.figure.gpu", value=shown(training.memory["gpu_peak"], formats.size, say)))
        yield "memory", say("list.comma").join(held)
    for name in ("loss", "learning_rate", "grad_norm"):
        if finite(value := last.get(name)):
            yield name, formats.significant(value)
    if training.evals:
        newest = training.evals[-1]
        yield "validation", say("watch.figure.at_step", value=scores(newest["metrics"], say), step=newest["step"])


def scores(metrics: dict[str, float], say: Words) -> str:
    """Validation scores in a row."""
    rows = [(name_of(name, say), value_text({"name": name, "value": value}, say)) for name, value in metrics.items()]
    return say("list.comma").join(f"{name} {value}" for name, value in rows)
