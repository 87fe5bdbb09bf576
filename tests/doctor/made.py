"""Run folders in the recorded formats, drawn from formulas in place of a training: healthy, unless told otherwise."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from limbeck.core.artifacts import seal
from limbeck.doctor._base import Finding
from limbeck.pipeline.doctor import examine_run

STEPS = 100
CLASSES = ("a", "b", "c", "d")
HIDDEN = {"stage": "distil", "term": "hidden", "student": "layer.0", "teacher": "layer.3", "between": "linear 8 -> 16"}

Row = dict[str, Any]


def term(kind: str, weight: float = 1.0, **fields: Any) -> Row:
    return {"type": kind, "weight": {"type": "constant", "value": weight}, "name": None, **fields}


def recipe(**stage: Any) -> Row:
    terms = [term("cross_entropy", 0.3), term("kl", 0.7), term("hidden", 0.5)]
    plan = {"name": "distil", "learning_rate": 1e-3, "max_grad_norm": 1.0, "balance": None, "on_policy": None}
    return {"stages": [{**plan, "terms": terms, **stage}], "evaluate": {"split": "test", "max_new_tokens": 64}}


def steps(*, ends_at: float = 0.2, stage: str = "distil") -> list[Row]:
    """A log whose terms fall, with a little noise."""
    draw, rows = random.Random(0), []
    for step in range(1, STEPS + 1):
        fade = math.exp(-step / 25)
        noise = 1 + draw.gauss(0, 0.03)
        terms = {
            "cross_entropy": (1.4 * fade + ends_at) * noise,
            "kl": (1.1 * fade + ends_at / 2) * noise,
            "hidden": (0.8 * fade + ends_at) * noise,
        }
        row = {"step": step, "stage": stage, "terms": terms, "loss": sum(terms.values()), "grad_norm": 1 + fade}
        cosines = [["cross_entropy", "kl", 0.6], ["cross_entropy", "hidden", 0.1], ["kl", "hidden", 0.1]]
        if step % 10 == 1:
            row["gradients"] = {"norms": dict.fromkeys(terms, 0.5), "cosines": cosines}
        rows.append({**row, "learning_rate": 1e-3, "units": 32, "seconds": 0.1})
    return rows


def evals(accuracy: list[float], loss: list[float]) -> list[Row]:
    """Validations at even distances."""
    rows, best = [], -1.0
    for i, (right, lost) in enumerate(zip(accuracy, loss, strict=True)):
        row = {"step": (i + 1) * STEPS // len(accuracy), "stage": "distil", "best": right > best}
        rows.append({**row, "metrics": {"loss": lost, "accuracy": right}})
        best = max(best, right)
    return rows


def score(model: str, name: str, value: float, low: float | None = None, high: float | None = None) -> Row:
    row = {"model": model, "axis": "accuracy", "name": name, "value": value, "low": low, "high": high}
    return {**row, "n": 400, "unit": "share", "split": "test"}


SCORES = [
    score("teacher", "accuracy", 0.96),
    score("student", "accuracy", 0.94),
    score("baseline", "accuracy", 0.91),
    score("student", "kept_of_teacher", 0.98, 0.96, 1.0),
    score("student", "student_minus_teacher", -0.02, -0.04, 0.0),
    score("student", "student_minus_baseline", 0.03, 0.01, 0.05),
    score("teacher", "unfinished_answers", 0.01, 0.0, 0.02),
    score("student", "unfinished_answers", 0.02, 0.0, 0.04),
]


def classes(**recall: float) -> list[Row]:
    return [
        {"model": model, "class": each, "n": 100, "recall": recall.get(each, 0.9) if model == "student" else 0.95}
        for model in ("teacher", "student")
        for each in CLASSES
    ]


DETAILS: dict[str, Any] = {
    "errors": {
        "student": {"inherited": 8, "other_wrong": 8, "new": 8, "both_right": 370, "mended": 6, "n": 400},
        "baseline": {"inherited": 6, "other_wrong": 10, "new": 20, "both_right": 358, "mended": 6, "n": 400},
    },
    "classes": classes(),
    "slices": [
        {"model": "student", "column": "class", "value": "a", "n": 100, "difference": -0.03, "p_holm": 0.4},
    ],
}


def changed_scores(*rows: Row) -> list[Row]:
    """The healthy scores with some in the place of others."""
    names = {(row["model"], row["name"]) for row in rows}
    return [*(row for row in SCORES if (row["model"], row["name"]) not in names), *rows]


def leave(
    folder: Path,
    *,
    plan: Row | None = None,
    log: list[Row] | None = None,
    validation: list[Row] | None = None,
    scores: list[Row] | None = None,
    details: Mapping[str, Any] | None = None,
    said: Mapping[str, list[Any]] | None = None,
    layers: list[Row] | None = None,
    config: Row | None = None,
    trained: bool = True,
) -> Path:
    """A run's folder; what is left out is healthy."""
    folder.mkdir()
    (folder / "recipe.json").write_text(json.dumps(plan or recipe()))
    train = folder / ("train" if trained else ".train.partial")
    (train / "student").mkdir(parents=True)
    (train / "student" / "config.json").write_text(
        json.dumps(config or {"architectures": ["BertForSequenceClassification"]})
    )
    falling = evals([0.6, 0.8, 0.9, 0.93, 0.94], [1.0, 0.6, 0.4, 0.3, 0.28])
    for name, rows in (("steps", log or steps()), ("evals", validation or falling)):
        (train / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (train / "layers.json").write_text(json.dumps([HIDDEN] if layers is None else layers))
    if not trained:
        return folder
    seal(train, {"kind": "train"})
    evaluate = folder / "evaluate"
    (evaluate / "details").mkdir(parents=True)
    (evaluate / "scores.json").write_text(json.dumps(scores or SCORES))
    for name, value in {**DETAILS, **(details or {})}.items():
        (evaluate / "details" / f"{name}.json").write_text(json.dumps(value))
    table = said or {"target": [*CLASSES] * 25, "prediction": [*CLASSES] * 25}
    pq.write_table(pa.table({"id": [str(i) for i in range(100)], **table}), evaluate / "predictions-student.parquet")
    seal(evaluate, {"kind": "evaluate"})
    return folder


def ill(folder: Path) -> dict[str, Finding]:
    """What is found above a note, by check."""
    return {each.check: each for each in examine_run(folder) if each.severity in ("warning", "error")}
