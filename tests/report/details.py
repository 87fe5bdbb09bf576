"""Details as the step `evaluate` leaves them, drawn from formulas."""

from __future__ import annotations

import math
from typing import Any

MODELS = ("teacher", "student", "baseline")
_LEVEL = {"teacher": 0.93, "student": 0.91, "baseline": 0.89}


def reliability(model: str) -> dict[str, Any]:
    bins = []
    for i in range(10):
        low, high = i / 10, (i + 1) / 10
        sure = low + 0.05
        right = min(1.0, sure * (0.9 if model == "student" else 0.97))
        ends = {"accuracy_low": max(0, right - 0.04), "accuracy_high": min(1, right + 0.04)}
        bins.append({"low": low, "high": high, "n": 20 + 30 * i, "confidence": sure, "accuracy": right, **ends})
    return {"bins": bins, "ece": 0.061 if model == "student" else 0.02, "temperature": 1.3, "ece_after": 0.02}


def robustness(name: str, slope: float) -> list[dict[str, Any]]:
    rows = []
    for model in MODELS:
        for severity in (0, 1, 3, 5):
            score = _LEVEL[model] - slope * severity
            same = 1 - slope * severity
            row = {"model": model, "perturbation": name, "severity": severity, "n": 200, "score": score}
            row |= {"low": score - 0.03, "high": score + 0.03, "stability": same}
            rows.append({**row, "stability_low": same - 0.02, "stability_high": min(1.0, same + 0.02)})
    return rows


def attention(layers: int, heads: int, shift: float) -> dict[str, Any]:
    entropy = [[0.4 + shift + 0.3 * math.sin(3 * i + h) / (1 + i) for h in range(heads)] for i in range(layers)]
    return {"layers": [str(i) for i in range(layers)], "entropy": entropy}


STEPS = {
    "teacher": "Each box holds 12 pens. 4 boxes hold 4*12=48 pens. 48-5=43 are left. The answer is 43.",
    "student": "Each box holds 12 pens. 4 boxes hold 4*12=44 pens. 44-5=39 are left. The answer is 39.",
}


def worked(id: str, kind: str, **changes: Any) -> dict[str, Any]:
    """An example of a language model: steps that lead to different answers."""
    sides = {m: {"prediction": text[-3:-1], "correct": m == "teacher", "text": text} for m, text in STEPS.items()}
    about = {"id": id, "kind": kind, "input": "A shop has 4 boxes of 12 pens and sells 5. How many are left?"}
    return {**about, "target": "43", "reference": "4*12=48, 48-5=43", **sides, **changes}


def labelled(id: str, kind: str, target: str, taught: str, said: str) -> dict[str, Any]:
    """An example of a classifier."""
    teacher = {"prediction": taught, "correct": taught == target, "confidence": 0.93}
    student = {"prediction": said, "correct": said == target, "confidence": 0.48}
    about = {"id": id, "kind": kind, "input": "Why was I charged twice?", "target": target, "reference": None}
    return {**about, "teacher": teacher, "student": student}


def classes() -> list[dict[str, Any]]:
    names = ("card_arrival", "lost_card", "top_up_failed", "exchange_rate", "refund")
    rows = []
    for model in MODELS:
        for i, name in enumerate(names):
            f1 = _LEVEL[model] - (0.3 if (model, name) == ("student", "refund") else 0.01 * i)
            row = {"model": model, "class": name, "n": 40, "predicted": 38, "precision": f1 + 0.02, "recall": f1 - 0.02}
            rows.append({**row, "f1": f1})
    return rows


def slices() -> list[dict[str, Any]]:
    found = [
        ("class", "refund", -0.31, 0.0004),
        ("word", "charged", -0.14, 0.03),
        ("input length", "4 to 20", -0.02, 1.0),
    ]
    return [
        {"column": c, "value": v, "n": 40, "model": "student", "score": 0.9 + d, "low": 0.82 + d, "high": 0.96 + d}
        | {"rest": 0.92, "difference": d, "p": p / 3, "p_holm": p}
        for c, v, d, p in found
    ]


def speed() -> list[dict[str, Any]]:
    return [
        {"model": m, "batch_size": b, "rows_per_second": 700 * f * b**0.5, "cpu_seconds_per_row": 0.003 / f / b**0.5}
        for m, f in (("teacher", 0.3), ("student", 1.0), ("baseline", 1.0))
        for b in (1, 8, 32)
    ]


def make_details(**changes: Any) -> dict[str, Any]:
    """Every table; `changes` take the place of whole ones."""
    errors = {"both_right": 2780, "inherited": 60, "other_wrong": 30, "new": 130, "mended": 80, "n": 3080}
    layers = [f"{i}" for i in range(6)]
    tokens = ["4", " boxes", " hold", " 4", "*", "12", "=", "44", " pens", "."]
    path = [
        {"layer": str(i), "answer": a, "probability": p}
        for i, (a, p) in enumerate([("lost_card", 0.3), ("refund", 0.8)])
    ]
    made: dict[str, Any] = {
        "classes": classes(),
        "slices": slices(),
        "errors": {"student": errors, "baseline": {**errors, "new": 190, "both_right": 2720}},
        "reliability": {m: reliability(m) for m in MODELS},
        "robustness": [*robustness("typos", 0.05), *robustness("swapped_words", 0.02), *robustness("distractor", 0.03)],
        "cka": {
            "teacher_layers": layers,
            "student_layers": ["0", "1"],
            "cka": [[math.exp(-abs(t - 5 * s) / 2) for t in range(6)] for s in range(2)],
            "n": 128,
        },
        "attention": {
            "teacher": attention(6, 12, 0.1),
            "student": attention(2, 12, 0.0),
            "agreement": [[0.9 - 0.12 * abs(t - 5 * s) for t in range(6)] for s in range(2)],
        },
        "lens": [{"id": "row-7", "model": "student", "layers": path}],
        "divergence": [
            {"id": "row-7", "tokens": tokens, "kl": [0.01 * 3**i for i in range(10)], "entropy": [0.5] * 10}
        ],
        "steps": {
            "teacher": {"rows": 200, "steps": 812, "equations": 640, "equations_right": 631, "answer_follows": 0.98},
            "student": {"rows": 200, "steps": 790, "equations": 620, "equations_right": 540, "answer_follows": 0.91},
        },
        "examples": [
            worked("row-7", "lost"),
            labelled("row-11", "gained", "refund", "lost_card", "refund"),
            labelled("row-12", "other", "refund", "lost_card", "exchange_rate"),
        ],
        "speed": speed(),
    }
    return {**made, **changes}
