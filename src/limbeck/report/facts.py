"""What a report is made from: recorded facts, never a model, a data set or a clock."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from limbeck.report.words import Words, words

Row = Mapping[str, Any]

MODELS = ("teacher", "student", "compressed", "baseline")
"""Models by the order in which tables show them; others follow under their own names."""

PRIMARY = ("accuracy", "answer_accuracy", "perplexity")
"""Scores that can carry the headline, the first that the student has."""


@dataclass(frozen=True)
class Facts:
    """Everything that a run left behind and a report tells.

    Shares (accuracy, agreement, a ratio of two accuracies, their difference) are fractions, 0.978 for 97.8 %,
    unless their unit says `%`, `percent` or `points`: those are shown as they are.

    Attributes:
        title: headline of the page.
        recipe: the resolved recipe as JSON values.
        scores: rows {model, axis, name, value, low, high, n, unit, split}; low, high and n may be None.
        steps: the student's training log, rows {step, stage, terms, loss, grad_norm, learning_rate, units, seconds};
            `step` counts on from stage to stage.
        evals: the student's validation log, rows {step, stage, metrics, best}; a stage's last row marked best is
            the checkpoint that it ended with.
        baseline_steps: the same of the baseline, empty without one.
        baseline_evals: the same of the baseline, empty without one.
        manifests: artifact manifests by step name, in the order of the run.
        details: tables too fine for the scores, by name, as `evaluate/details/<name>.json` has them.
        gate: what a compressed student was held to and kept, as `compress/gate.json` has it; empty without one.
        students: the models that the report is about; several where runs are compared.
        runs: the facts of each run, where several are compared; `students` are its keys then.
    """

    title: str
    recipe: Mapping[str, Any]
    scores: list[dict[str, Any]]
    steps: list[dict[str, Any]] = field(default_factory=list)
    evals: list[dict[str, Any]] = field(default_factory=list)
    baseline_steps: list[dict[str, Any]] = field(default_factory=list)
    baseline_evals: list[dict[str, Any]] = field(default_factory=list)
    manifests: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    gate: Mapping[str, Any] = field(default_factory=dict)
    students: tuple[str, ...] = ("student",)
    runs: Mapping[str, Facts] = field(default_factory=dict)

    def find(self, model: str, name: str) -> Row | None:
        """A model's score by name, None where none was recorded or it is not a finite number."""
        rows = [r for r in self.scores if r["model"] == model and r["name"] == name and finite(r.get("value"))]
        chosen = section(self.recipe, "evaluate").get("split")
        return next((r for r in rows if r.get("split") == chosen), rows[0] if rows else None)

    @property
    def say(self) -> Words:
        """The words of the report's language."""
        return words(section(self.recipe, "report").get("language") or "en")

    @property
    def models(self) -> list[str]:
        """Every model that has a score, the known ones first."""
        return in_order(str(r["model"]) for r in self.scores)

    @property
    def primary(self) -> str | None:
        """Name of the score that the headline is about."""
        return next((name for name in PRIMARY if any(self.find(student, name) for student in self.students)), None)

    @property
    def trainings(self) -> list[tuple[str, list[dict[str, Any]], list[dict[str, Any]]]]:
        """Models that were trained, each with its training log and its validation log."""
        if self.runs:
            return [(name, run.steps, run.evals) for name, run in self.runs.items()]
        return [("student", self.steps, self.evals), ("baseline", self.baseline_steps, self.baseline_evals)]

    @property
    def has_teacher(self) -> bool:
        """True if the teacher was scored, or the student was compared with it."""
        if self.runs:
            return any(run.has_teacher for run in self.runs.values())
        return any(r["model"] == "teacher" for r in self.scores) or self.find("student", "kept_of_teacher") is not None

    @property
    def has_baseline(self) -> bool:
        """True if the student was compared with one trained on the labels alone."""
        return any(r["model"] == "baseline" or "minus_baseline" in r["name"] for r in self.scores)

    def splits(self) -> list[str]:
        """Splits that quality was measured on, the headline's first."""
        rows = [self.find(student, self.primary) for student in self.students if self.primary]
        rows += [r for r in self.scores if r["axis"] != "efficiency"]
        return list(dict.fromkeys(str(r["split"]) for r in rows if r and r.get("split")))


def section(mapping: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """A nested mapping, empty where there is none: a recipe of another version may lack it."""
    value = mapping.get(key)
    return value if isinstance(value, Mapping) else {}


def finite(value: Any) -> TypeGuard[int | float]:
    """True for a number that can be shown; logs hold None, NaN and infinity too."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def model_name(model: str, say: Words) -> str:
    """A model of the scores as tables call it; other names are a user's, and stay."""
    return say.either(f"model.{model}", model) if model in MODELS else model


def in_order(models: Iterable[str]) -> list[str]:
    """Models without repeats, the known ones first."""
    seen = list(dict.fromkeys(models))
    return [m for m in MODELS if m in seen] + [m for m in seen if m not in MODELS]
