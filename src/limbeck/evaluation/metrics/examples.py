"""Rows on which student and teacher differ, to be read."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from limbeck.core.parts import part
from limbeck.evaluation.book import Book
from limbeck.evaluation.metrics._base import BASELINE, Metric, Tables
from limbeck.evaluation.predictions import Predictions

_SHARES = {"lost": 0.5, "gained": 0.3, "other": 0.2}


@part
class Examples(Metric):
    """Rows on which the student and the teacher answer differently, in `details/examples.json`.

    About half are lost (the teacher is right, the student is not), the others gained, or wrong in different ways. Of
    each kind they are taken at even distances over the rows, and not by how they look.
    """

    most: int = Field(default=10, gt=0)
    """No more rows than these."""

    wants: ClassVar[tuple[str, ...]] = ("prediction", "correct")

    def measure(self, book: Book, tables: Tables) -> None:
        student = next((t for name, t in tables.taught if name != BASELINE and self.fits(t)), None)
        teacher = tables.teacher
        if student is None or teacher is None or not self.fits(teacher):
            return
        kinds: dict[str, list[int]] = {kind: [] for kind in _SHARES}
        for i, (mine, its) in enumerate(zip(student["prediction"], teacher["prediction"], strict=True)):
            if mine != its:
                right, taught = student["correct"][i], teacher["correct"][i]
                kinds["gained" if right and not taught else "lost" if taught and not right else "other"].append(i)
        book.details["examples"] = [
            _example(kind, i, student, teacher) for kind, places in self._chosen(kinds).items() for i in places
        ]

    def _chosen(self, kinds: dict[str, list[int]]) -> dict[str, list[int]]:
        """So many of each kind; what one kind lacks, the others have."""
        counts = {kind: min(len(places), round(_SHARES[kind] * self.most)) for kind, places in kinds.items()}
        for kind, places in kinds.items():
            counts[kind] += min(len(places) - counts[kind], self.most - sum(counts.values()))
        return {kind: _spread(places, counts[kind]) for kind, places in kinds.items()}


def _spread(places: list[int], count: int) -> list[int]:
    return [places[i] for i in np.linspace(0, len(places) - 1, count).round().astype(int)] if count else []


def _example(kind: str, i: int, student: Predictions, teacher: Predictions) -> dict[str, Any]:
    def cell(table: Predictions, name: str) -> Any:
        return table[name][i] if name in table else None

    about = {"id": student["id"][i], "kind": kind, **{n: cell(student, n) for n in ("input", "target", "reference")}}
    for name, table in (("teacher", teacher), ("student", student)):
        said = {n: cell(table, n) for n in ("prediction", "correct", "confidence", "text") if n in table}
        about[name] = said
    return about
