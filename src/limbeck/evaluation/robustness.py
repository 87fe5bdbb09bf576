"""How quality falls as the input gets worse, and whether the answer stays the same.

Shapes: n rows, S severities.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np

from limbeck.core.errors import MissingExtra
from limbeck.core.parts import build, names
from limbeck.core.progress import bar
from limbeck.core.recipe.evaluate import Robustness
from limbeck.core.types import Sample
from limbeck.data.draw import subsample
from limbeck.data.perturbation import Graded, Perturbation, Refused
from limbeck.evaluation.book import Book
from limbeck.evaluation.statistics import mean, ratio, share_interval

Answers = Mapping[str, Sequence[Any]]
"""Columns `id`, `prediction` (None: no answer could be read) and `correct`."""
Predict = Callable[[str, Sequence[Sample]], Answers]
"""The answers of a model, by its name, to rows; rows that it cannot read may be missing."""

AXIS = "robustness"
UNCHANGED = "nothing_changed"


@dataclass(frozen=True)
class Degrees:
    """A perturbation at every severity, done to the same rows.

    Attributes:
        name: of the perturbation.
        keeps_answer: whether the right answer is the old one.
        severities: how strongly, S of them.
        rows: by the row's id, the changed row at each severity; the row itself where chance has left it as it was.
        refused: rows that could not be changed, by reason.
    """

    name: str
    keeps_answer: bool
    severities: tuple[int, ...]
    rows: dict[str, list[Sample]] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)


class Asked:
    """A model that is asked about changed rows.

    Args:
        name: of the model.
        samples: the rows as they are.
        predict: asks it.
        book: takes the figures.

    Attributes:
        details: its part of the detail `robustness`.
        same: by row, how often its answer to the changed row was the one to the row as it is.
        compared: by row, of how many.
    """

    def __init__(self, name: str, samples: Sequence[Sample], predict: Predict, book: Book):
        self.name, self.predict, self.book = name, predict, book
        self.before = _by_id(predict(name, samples))
        self.details: list[dict[str, Any]] = []
        self.same, self.compared = Counter[str](), Counter[str]()

    def judge(self, degrees: Degrees) -> int:
        """Write down how the model does on changed rows.

        Returns:
            The number of rows that it could not read, as they are or changed; they are left out at every severity.
        """
        changed = [sample for i, row in degrees.rows.items() for sample in row if sample.id != i]
        said = {**self.before, **_by_id(self.predict(self.name, changed))}
        ids = [i for i, row in degrees.rows.items() if i in said and all(sample.id in said for sample in row)]
        if not ids:
            return len(degrees.rows)
        after = [[said[sample.id] for sample in degrees.rows[i]] for i in ids]
        correct_nS = np.array([[right for _, right in row] for row in after])
        self.book.estimate(self.name, AXIS, f"robustness_{degrees.name}", "share", mean, correct_nS.mean(1))
        self._detail(degrees, 0, [self.before[i][1] for i in ids])
        # Two answers that cannot be read are not the same answer.
        same = [[p is not None and p == self.before[i][0] for p, _ in row] for i, row in zip(ids, after, strict=True)]
        for s, severity in enumerate(degrees.severities):
            self._detail(degrees, severity, correct_nS[:, s].tolist(), [row[s] for row in same])
        if degrees.keeps_answer:
            self.same.update({i: sum(row) for i, row in zip(ids, same, strict=True)})
            self.compared.update(dict.fromkeys(ids, len(degrees.severities)))
        return len(degrees.rows) - len(ids)

    def stability(self) -> None:
        """Write down how often the answer stayed, over all perturbations that leave the right one as it is."""
        if self.compared:
            columns = [np.array([count[i] for i in self.compared]) for count in (self.same, self.compared)]
            self.book.estimate(self.name, AXIS, "stability", "share", ratio, *columns)

    def _detail(self, degrees: Degrees, severity: int, correct: Sequence[bool], same: Sequence[bool] = ()) -> None:
        row = {"model": self.name, "perturbation": degrees.name, "severity": severity, "n": len(correct)}
        row |= self._share("score", "", correct)
        if same and degrees.keeps_answer:
            row |= self._share("stability", "stability_", same)
        self.details.append(row)

    def _share(self, name: str, ends: str, flags: Sequence[bool]) -> dict[str, float]:
        count, n = int(np.sum(flags)), len(flags)
        low, high = share_interval(count, n, self.book.plan.confidence)
        return {name: count / n, f"{ends}low": low, f"{ends}high": high}


def measure(
    models: Iterable[str], samples: Sequence[Sample], plan: Robustness, book: Book, predict: Predict, *, seed: int
) -> list[str]:
    """Ask models about rows as they are and made worse: scores, and the detail `robustness`.

    A perturbation is judged on the same rows at every severity, those that it can change; severity 0 is these rows
    as they are. A perturbation without degrees has the severity 1 alone. The answer to a row that a perturbation
    gives another right answer is not compared with the old one.

    Args:
        models: names.
        samples: rows, of which `plan.max_samples` are drawn.
        plan: which perturbations, how strong, on how many rows.
        book: takes the figures.
        predict: asks a model.
        seed: draws the rows and the changes.

    Returns:
        What could not be measured, and how many rows could not be changed for what reason, a line each.
    """
    drawn = [samples[i] for i in subsample(range(len(samples)), plan.max_samples, count=len(samples), seed=seed)]
    asked = [Asked(name, drawn, predict, book) for name in models]
    notes: list[str] = []
    unfit = []
    chosen = _chosen(plan)
    with bar(None) as progress:
        task = progress.add_task("robustness", total=len(chosen), figures="")
        for name, each in chosen:
            progress.update(task, figures=name)
            try:
                degrees = _done(name, each, plan.severities, drawn, seed)
            except MissingExtra as error:
                notes.append(f"robustness against {name}: {error.what}; {error.fix}")
            else:
                if degrees.rows:
                    notes += _judged(degrees, asked)
                else:
                    unfit.append(name)
            progress.update(task, advance=1, figures="")
    if unfit and plan.perturbations is not None:
        notes.append(f"robustness: no row can be changed by {', '.join(unfit)}")
    for model in asked:
        model.stability()
    if details := [row for model in asked for row in model.details]:
        book.details["robustness"] = details
    return notes


def _judged(degrees: Degrees, asked: Sequence[Asked]) -> list[str]:
    """What all models do on changed rows is written down; returned is how many could not be changed or read."""
    name = degrees.name
    notes = [f"robustness: {name} could not change {n} rows ({why})" for why, n in degrees.refused.items()]
    for model in asked:
        if unread := model.judge(degrees):
            notes.append(f"robustness: {model.name} could not read {unread} of the rows changed by {name}")
    return notes


def _chosen(plan: Robustness) -> list[tuple[str, Perturbation]]:
    """What is done to the rows, by a name for each."""
    every = (build("perturbation", name) for name in names("perturbation"))
    left_out = (each for each in cast(Iterable[Perturbation], every) if not each.asks_teacher)
    found: dict[str, Perturbation] = {}
    for each in left_out if plan.perturbations is None else cast(list[Perturbation], plan.perturbations):
        repeated = sum(other.type() == each.type() for other in found.values())
        found[each.type() + (f"_{repeated + 1}" if repeated else "")] = each
    return list(found.items())


def _done(name: str, part: Perturbation, severities: Sequence[int], samples: Sequence[Sample], seed: int) -> Degrees:
    """The rows that a perturbation can change, at every severity."""
    steps = tuple(sorted(set(severities))) if isinstance(part, Graded) else (1,)
    degrees = Degrees(name, part.keeps_answer, steps)
    parts = [replace(part, severity=step) for step in steps] if isinstance(part, Graded) else [part]
    for sample in samples:
        made = [each.perturb(sample, seed) for each in parts]
        reasons = [each.reason for each in made if isinstance(each, Refused)]
        lasting = [reason for reason in reasons if reason != UNCHANGED]
        if lasting or len(reasons) == len(made):
            degrees.refused[(lasting or reasons)[0]] += 1
            continue
        degrees.rows[sample.id] = [
            sample if isinstance(each, Refused) else replace(each.sample, id=f"{each.sample.id}@{step}")
            for step, each in zip(steps, made, strict=True)
        ]
    return degrees


def _by_id(answers: Answers) -> dict[str, tuple[Any, bool]]:
    """By row: the answer, and whether it is right."""
    columns = (answers[name] for name in ("id", "prediction", "correct"))
    return {i: (prediction, bool(correct)) for i, prediction, correct in zip(*columns, strict=True)}
