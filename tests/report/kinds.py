"""Facts of the three kinds of runs that ship as recipes: pictures, texts by class, worked answers."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from limbeck.report.facts import Facts
from tests.report.details import labelled, make_details, worked
from tests.report.made import RECIPE, make_facts, score, without

_WORKED = ("steps", "divergence")
_BY_CLASS = ("classes", "reliability")
_INSIDE = ("attention", "lens")


def picture(seed: int) -> str:
    buffer = io.BytesIO()
    noise = np.random.default_rng(seed).integers(0, 256, (16, 16), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _less(details: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in details.items() if name not in names}


def quickstart() -> Facts:
    """Pictures by class: convolutions, so no attention."""
    kinds = ["lost"] * 5 + ["gained"] * 3 + ["other"] * 2
    shown = [{**labelled(f"test/{i}", kind, "3", "3", "8"), "input": None} for i, kind in enumerate(kinds)]
    details = make_details(examples=[{**each, "image": picture(i)} for i, each in enumerate(shown)])
    names = [f"resnet.encoder.stages.{i}" for i in range(2)]
    details["cka"] = {"teacher_layers": names, "student_layers": names, "cka": [[0.57, 0.55], [0.62, 0.91]], "n": 128}
    recipe = {**RECIPE, "task": {"type": "image_classification"}, "data": {"train": {"type": "digits"}}}
    return make_facts(title="Digits", recipe=recipe, details=_less(details, *_WORKED, *_INSIDE))


def banking77() -> Facts:
    """Texts by class: many classes with long names, layers with long names."""
    names = [
        f"{verb}_{what}"
        for verb in ("pending", "declined", "wrong_amount_of")
        for what in ("card", "transfer", "top_up", "cash")
    ]
    rows = [{**row, "class": f"{name}_{row['class']}"} for name in names for row in make_details()["classes"]]
    shown = [labelled(f"row-{i}", "lost", names[0], names[0], names[-1]) for i in range(9)]
    long = {**labelled("row-10", "other", *names[:3]), "input": "Why was I charged twice for the same card? " * 30}
    details = make_details(classes=rows, examples=[*shown, long])
    student = [f"albert.encoder.albert_layer_groups.{i}.albert_layers.0" for i in range(3)]
    teacher = [f"bert.encoder.layer.{i}" for i in range(6)]
    cka = [[0.5 + 0.01 * (i + j) for j in range(6)] for i in range(3)]
    details["cka"] = {"teacher_layers": teacher, "student_layers": student, "cka": cka, "n": 128}
    return make_facts(details=_less(details, *_WORKED))


def reasoning() -> Facts:
    """Worked answers: perplexity and answers that are graded, no classes."""
    scores: list[dict[str, Any]] = [row for row in without() if row["name"] != "accuracy"]
    for model, right, lost in (("teacher", 0.99, 1.31), ("student", 0.56, 1.42), ("baseline", 0.44, 1.5)):
        scores.append(score(model, "accuracy", "answer_accuracy", right, low=right - 0.03, high=min(1.0, right + 0.03)))
        scores.append(score(model, "accuracy", "perplexity", lost, unit="per token"))
    shown = [worked(f"test/{i}", kind) for i, kind in enumerate(("lost", "lost", "gained", "other"))]
    recipe = {**RECIPE, "task": {"type": "causal_lm"}, "data": {"train": {"type": "arithmetic"}}}
    return make_facts(recipe=recipe, scores=scores, details=_less(make_details(examples=shown), *_BY_CLASS))


KINDS: Mapping[str, Any] = {"quickstart": quickstart, "banking77": banking77, "reasoning": reasoning}
