"""Reasoning step by step: whether its equations are true, its answer follows, and its way is the teacher's."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import ClassVar

import numpy as np

from limbeck.core.parts import part
from limbeck.data.steps import canonical, steps_of
from limbeck.evaluation.book import Book
from limbeck.evaluation.metrics._base import Metric, Tables
from limbeck.evaluation.predictions import Predictions
from limbeck.evaluation.statistics import mean, ratio
from limbeck.verification.arithmetic import equations


@dataclass(frozen=True)
class Way:
    """A text's way to its answer.

    Attributes:
        steps: how many.
        conclusions: what they arrive at, in order, without the answer.
        equations: how many can be judged.
        right: how many of these are true.
    """

    steps: int
    conclusions: tuple[str, ...]
    equations: int
    right: int


@part
class Steps(Metric):
    """Figures of reasoning texts: true equations, answers that follow from the last step, and the teacher's way.

    `step_equations_right`: the share of the equations that can be judged. `answer_follows_steps`: of the rows with an
    answer and a conclusion before it, the share in which the two are equal. `path_agreement`: 2 M / T, where M of the
    T conclusions of model and teacher are equal and in the same order; rows in which neither concludes anything
    are left out. Counts are in `details/steps.json`. Only for models whose texts have steps that conclude something.

    Reference:
        Ratcliff, Metzener, Pattern Matching: The Gestalt Approach, 1988 (the matching).
    """

    wants: ClassVar[tuple[str, ...]] = ("text",)

    def measure(self, book: Book, tables: Tables) -> None:
        ways = {name: [way_of(text or "") for text in t["text"]] for name, t in tables.models.items() if self.fits(t)}
        ways = {name: found for name, found in ways.items() if any(way.conclusions for way in found)}
        for name, found in ways.items():
            details = self._own(book, name, found, tables.models[name])
            if name != "teacher" and "teacher" in ways:
                details |= _beside(book, name, found, ways["teacher"])
            book.details.setdefault("steps", {})[name] = details

    def _own(self, book: Book, name: str, ways: list[Way], table: Predictions) -> dict[str, float]:
        count, right = (np.asarray([getattr(way, n) for way in ways], dtype=float) for n in ("equations", "right"))
        details = {"rows": len(ways), "steps": sum(way.steps for way in ways)}
        found: dict[str, float] = {**details, "equations": int(count.sum()), "equations_right": int(right.sum())}
        if count.any():
            book.estimate(name, "accuracy", "step_equations_right", "share", ratio, right, count)
        said = table["prediction"] if "prediction" in table else [None] * len(ways)
        ends = [
            (way.conclusions[-1], p) for way, p in zip(ways, said, strict=True) if way.conclusions and p is not None
        ]
        if ends:
            follows = np.asarray([last == canonical(p) for last, p in ends], dtype=float)
            score = book.estimate(name, "interpretability", "answer_follows_steps", "share", mean, follows)
            found |= {"answer_follows": score.value, "answers_after_steps": len(ends)}
        return found


def way_of(text: str) -> Way:
    """The way of a text."""
    steps = steps_of(text)
    conclusions = tuple(s.conclusion for s in steps if s.conclusion is not None and not s.answers)
    found = [equation.holds() for step in steps for equation in equations(step.text)]
    return Way(len(steps), conclusions, len(found), sum(found))


def _beside(book: Book, name: str, ways: list[Way], teacher: list[Way]) -> dict[str, float]:
    """How far the conclusions are the teacher's, and in its order."""
    pairs = [
        (a.conclusions, b.conclusions) for a, b in zip(ways, teacher, strict=True) if a.conclusions or b.conclusions
    ]
    alike = np.asarray([SequenceMatcher(None, a, b, autojunk=False).ratio() for a, b in pairs])
    score = book.estimate(name, "interpretability", "path_agreement", "share", mean, alike)
    return {"path_agreement": score.value, "paths": len(pairs)}
