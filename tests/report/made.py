"""A run as the pipeline records it, drawn from formulas in place of a training."""

from __future__ import annotations

import math
import random
from typing import Any

from limbeck.report.facts import Facts
from tests.report.details import make_details

STAGES = (("warm-up", 180), ("distil", 1620))


def score(model: str, axis: str, name: str, value: float, **more: Any) -> dict[str, Any]:
    row = {"model": model, "axis": axis, "name": name, "value": value, "low": None, "high": None}
    return {**row, "n": 3080, "unit": "share", "split": "test", **more}


def log(seed: int, teacher: bool) -> list[dict[str, Any]]:
    draw, rows, step = random.Random(seed), [], 0
    for stage, length in STAGES:
        for _ in range(length):
            step += 1
            fade = math.exp(-step / 320)
            terms = {"cross_entropy": 0.16 + 4.1 * fade + draw.gauss(0, 0.02 + 0.25 * fade)}
            if teacher and stage == "distil":
                terms["kl"] = 0.11 + 2.6 * fade + draw.gauss(0, 0.01 + 0.12 * fade)
                terms["hidden"] = 0.031 + 0.4 * fade + abs(draw.gauss(0, 0.004))
            row = {"step": step, "stage": stage, "terms": terms, "loss": sum(terms.values()), "grad_norm": 1.3}
            rows.append({**row, "learning_rate": 1e-3 * (1 - step / 1800), "units": {"sample": 64}, "seconds": 0.11})
    return rows


def validations(top: float, seed: int) -> list[dict[str, Any]]:
    draw, rows, best = random.Random(seed), [], 0.0
    for step in range(90, 1801, 90):
        accuracy = top - 0.75 * math.exp(-step / 260) + draw.gauss(0, 0.004)
        stage = "warm-up" if step <= STAGES[0][1] else "distil"
        metrics = {"accuracy": accuracy, "loss": 2 * (1 - accuracy)}
        rows.append({"step": step, "stage": stage, "metrics": metrics, "best": accuracy > best})
        best = max(best, accuracy)
    return rows


def manifest(kind: str, digest: str, parents: dict[str, str], seconds: float, **more: Any) -> dict[str, Any]:
    versions = {"limbeck": "0.1.0", "python": "3.11.9", "torch": "2.13.0", "transformers": "5.23.0"}
    files = {
        f"{kind}.json": {"bytes": 48_210, "sha256": "0" * 64},
        "part.parquet": {"bytes": 7_310_000, "sha256": "1" * 64},
    }
    made = {"kind": kind, "digest": digest * 8, "parents": parents, "files": files, "versions": versions}
    return {**made, "created": "2026-02-11T09:30:00Z", "seconds": seconds, "counts": {}, "notes": [], **more}


RECIPE = {
    "task": {"type": "text-classification"},
    "output": "runs/banking77",
    "seed": 0,
    "teacher": {"model": "sentence-transformers/all-MiniLM-L6-v2", "dtype": "auto"},
    "student": {"model": "from-teacher", "layers": [0, 5], "dtype": "auto"},
    "data": {"train": {"type": "banking77"}, "validation": 0.1, "text": "text", "label": "label", "seed": 0},
    "stages": [
        {"name": "warm-up", "epochs": 1.0, "terms": [{"type": "cross_entropy", "weight": 1.0}]},
        {"name": "distil", "epochs": 9.0, "terms": [{"type": "cross_entropy"}, {"type": "kl", "temperature": 2.0}]},
    ],
    "baseline": True,
    "evaluate": {"split": "test", "confidence": 0.95, "resamples": 10_000, "latency_runs": 50},
}


def costs(model: str, parameters: int, p50: float, p95: float) -> list[dict[str, Any]]:
    return [
        score(model, "efficiency", "parameters", parameters, n=1, unit="parameters"),
        score(model, "efficiency", "bytes", 4 * parameters, n=1, unit="bytes"),
        score(model, "efficiency", "latency_p50", p50, n=50, unit="ms"),
        score(model, "efficiency", "latency_p95", p95, n=50, unit="ms"),
    ]


def against_teacher(model: str, same: float, kept: float, speedup: float) -> list[dict[str, Any]]:
    return [
        score(model, "agreement", "agreement_with_teacher", same, low=same - 0.008, high=same + 0.008),
        score(model, "comparison", "kept_of_teacher", kept, low=kept - 0.008, high=kept + 0.008, unit="ratio"),
        score(model, "efficiency", "size_ratio", 13.96, n=1, unit="x"),
        score(model, "efficiency", "speedup", speedup, low=speedup - 0.08, high=speedup + 0.09, n=50, unit="x"),
    ]


SCORES = [
    score("teacher", "accuracy", "accuracy", 0.9312, low=0.9221, high=0.9399),
    score("student", "accuracy", "accuracy", 0.9182, low=0.9084, high=0.9276),
    score("baseline", "accuracy", "accuracy", 0.8974, low=0.8867, high=0.9081),
    *costs("teacher", 22_743_000, 4.61, 5.32),
    *costs("student", 1_629_000, 1.44, 1.71),
    *costs("baseline", 1_629_000, 1.45, 1.7),
    *against_teacher("student", 0.9513, 0.986, 3.2),
    *against_teacher("baseline", 0.9262, 0.9637, 3.18),
    score("student", "comparison", "student_minus_baseline", 0.0208, low=0.0092, high=0.0325),
]


def counts() -> dict[str, Any]:
    rows = {"train": 9003, "validation": 1000, "train_rows": 10_003, "held_out": 1000}
    how = {"validation_from": "0.1 of the training rows, stratified by label", "left_out_by_max_samples": 0}
    again = {"train_rows_also_in_validation": 4, "classes_without_training_rows": []}
    lost = {"warm-up": {"train": {"truncated": 12}, "validation": {}}, "distil": {"train": {"truncated": 12}}}
    return {**rows, **how, **again, "lost": lost}


def make_facts(**changes: Any) -> Facts:
    """A run with teacher and baseline; `changes` take the place of whole fields."""
    teacher = {"name": "sentence-transformers/all-MiniLM-L6-v2", "revision": "c9745ed", "licence": "apache-2.0"}
    student = {**teacher, "name": f"layers [0, 5] of {teacher['name']}"}
    shared = ["teacher and student share all 30,522 vocabulary rows"]
    taught = {"prepare": "3fa4c1d0" * 8}
    scored = {"prepare": "3fa4c1d0" * 8, "train": "91bd07e3" * 8, "baseline": "c07714d2" * 8}
    given: dict[str, Any] = {
        "title": "banking77: MiniLM, six layers into two",
        "recipe": RECIPE,
        "scores": [dict(row) for row in SCORES],
        "steps": log(0, teacher=True),
        "evals": validations(0.922, 1),
        "baseline_steps": log(2, teacher=False),
        "baseline_evals": validations(0.9, 3),
        "details": make_details(),
        "manifests": {
            "prepare": manifest("prepare", "3fa4c1d0", {}, 246.2, model=teacher, counts=counts()),
            "train": manifest("train", "91bd07e3", taught, 412.7, model=student, counts=counts(), notes=shared),
            "baseline": manifest("baseline", "c07714d2", taught, 230.4, counts=counts()),
            "evaluate": manifest(
                "evaluate",
                "5e0a9911",
                scored,
                38.9,
                counts={"rows": 3080, "rows_also_trained_on": 0, "split": "test"},
                hardware={"device": "cpu", "threads": 2},
            ),
        },
    }
    return Facts(**{**given, **changes})


NO_LOGS: dict[str, Any] = {"steps": [], "evals": [], "baseline_steps": [], "baseline_evals": []}
"""Changes that leave the curves away, which take long to draw."""


def without(*models: str, names: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """The scores less some models and some names."""
    return [dict(row) for row in SCORES if row["model"] not in models and row["name"] not in names]


def changed(name: str, model: str = "student", **fields: Any) -> list[dict[str, Any]]:
    """The scores, one of them changed."""
    return [{**row, **(fields if (row["model"], row["name"]) == (model, name) else {})} for row in SCORES]
