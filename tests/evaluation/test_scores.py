"""Scores from recorded predictions."""

from __future__ import annotations

import numpy as np
import pytest

from limbeck.core.recipe import Evaluate
from limbeck.evaluation.efficiency import WARM_UP, latencies
from limbeck.evaluation.scores import Seen, all_scores

PLAN = Evaluate(resamples=200)


def seen(predictions: list[str | None], targets: list[str], size: int = 10, likelihoods: bool = False) -> Seen:
    correct = [p == t for p, t in zip(predictions, targets, strict=True)]
    known = [p is not None for p in predictions]
    answers = {"prediction": predictions, "correct": correct, "parsed": known, "finished": known}
    nll = {"nll": [1.0] * len(targets), "tokens": [2] * len(targets)} if likelihoods else None
    return Seen(answers, nll, size, 4 * size, np.asarray([float(size)] * 5))


def table(scores: list[dict[str, object]]) -> dict[tuple[object, object], object]:
    return {(s["model"], s["name"]): s["value"] for s in scores}


def test_classifier() -> None:
    targets = ["a", "b", "a", "b"]
    models = {
        "teacher": seen(["a", "b", "a", "a"], targets, 100),
        "student": seen(["a", "b", "b", "a"], targets),
        "baseline": seen(["b", "b", "b", "a"], targets),
    }
    found = table(all_scores(models, PLAN))
    assert found["teacher", "accuracy"] == 0.75
    assert found["student", "accuracy"] == 0.5
    assert found["student", "agreement_with_teacher"] == 0.75
    assert found["student", "kept_of_teacher"] == pytest.approx(2 / 3)
    assert found["student", "student_minus_baseline"] == 0.25
    assert found["student", "size_ratio"] == 10
    assert found["student", "speedup"] == 10
    assert ("teacher", "speedup") not in found


def test_unreadable_answers_agree_with_nothing() -> None:
    models = {
        "teacher": seen([None, "1"], ["1", "1"], likelihoods=True),
        "student": seen([None, "1"], ["1", "1"], likelihoods=True),
    }
    found = table(all_scores(models, PLAN))
    assert found["student", "agreement_with_teacher"] == 0.5
    assert found["student", "unparsed_answers"] == 0.5
    assert found["student", "perplexity"] == pytest.approx(np.exp(0.5))


def test_student_alone() -> None:
    found = all_scores({"student": seen(["a"], ["a"])}, PLAN)
    assert {s["axis"] for s in found} == {"accuracy", "efficiency"}


def test_every_score_says_where_it_is_from() -> None:
    for score in all_scores({"student": seen(["a", "b"], ["a", "a"])}, PLAN):
        assert score["split"] == "test"
        assert score["n"] >= 1
        if score["low"] is not None:
            assert score["low"] <= score["value"] <= score["high"]


def test_models_take_turns() -> None:
    calls: list[str] = []
    requests = {name: (lambda i, name=name: calls.append(name)) for name in ("one", "two")}
    times = latencies(requests, 4)
    assert calls == ["one", "two"] * (WARM_UP + 4)
    assert all(len(t) == 4 for t in times.values())
