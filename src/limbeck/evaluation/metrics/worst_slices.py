"""Where a model loses: groups of rows, found automatically, on which it does worst."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from limbeck.core.parts import part
from limbeck.evaluation.book import Book
from limbeck.evaluation.metrics._base import BASELINE, TEACHER, Metric, Tables
from limbeck.evaluation.predictions import SLICE, Predictions
from limbeck.evaluation.statistics import fisher, holm, mcnemar, share_interval

_WORD = re.compile(r"[^\W\d_]{2,}")


@part
class WorstSlices(Metric):
    """Groups of rows on which a model does worst: by class, length of the input, columns of the data, and words.

    Looked at are the classes, the quarters of the rows by length of input, the values of `evaluate.slices` and of the
    way rows were perturbed, and the rows whose input has a word. Beside a teacher, a group's `difference` is the
    model's score minus the teacher's there, tested by McNemar's test; without one it is minus the score on the rest
    of the rows, tested by Fisher's. P values are corrected for all groups of a model. Groups that chance hardly
    explains come first, the largest loss ahead. In `details/slices.json`.

    Reference:
        Chung et al., Slice Finder: Automated Data Slicing for Model Validation, 2018, arXiv:1807.06068.
    """

    least: int = Field(default=20, gt=1)
    """Rows that a group must have."""
    most: int = Field(default=50, gt=0)
    """Groups that are written down, of each model."""
    words: int = Field(default=200, ge=0)
    """Words whose rows are looked at: the most frequent of those in at most half of the rows."""
    level: float = Field(default=0.05, gt=0, lt=1)
    """P values below come first."""

    wants: ClassVar[tuple[str, ...]] = ("correct",)

    def measure(self, book: Book, tables: Tables) -> None:
        shown = next(iter(tables.models.values()))
        groups = [(*names, rows) for *names, rows in self._groups(shown) if self.least <= rows.sum() < len(shown)]
        for name, table in tables.models.items():
            if groups and self.fits(table) and (name not in (TEACHER, BASELINE) or len(tables.models) == 1):
                found = self._judged(book, name, table, groups, tables.teacher)
                book.details.setdefault("slices", []).extend(found)

    def _judged(
        self, book: Book, name: str, table: Predictions, groups: list[Any], teacher: Predictions | None
    ) -> list[dict[str, Any]]:
        correct, found = table.correct, []
        beside = teacher if teacher is not table else None
        for column, value, rows in groups:
            inside, n = correct[rows], int(rows.sum())
            low, high = share_interval(int(inside.sum()), n, book.plan.confidence)
            score, rest = float(inside.mean()), float(correct[~rows].mean())
            if beside is not None:
                less, p = score - float(beside.correct[rows].mean()), mcnemar(inside, beside.correct[rows])
            else:
                less, p = score - rest, fisher(inside, correct[~rows])
            row = {"column": column, "value": value, "n": n, "model": name, "score": score, "low": low, "high": high}
            found.append({**row, "rest": rest, "difference": less, "p": p})
        for row, p in zip(found, holm([row["p"] for row in found]), strict=True):
            row["p_holm"] = p
        return sorted(found, key=lambda row: (row["p_holm"] > self.level, row["difference"]))[: self.most]

    def _groups(self, table: Predictions) -> Iterator[tuple[str, str, np.ndarray]]:
        """Column, value, and which rows [n] have it."""
        if table.classes is not None:
            yield from _values("class", table["target"])
        for name in table.slices:
            yield from _values(name, table[SLICE + name])
        if "input" in table:
            texts = [text or "" for text in table["input"]]
            yield from _quarters("input length", np.asarray([len(text) for text in texts]))
            yield from self._words(texts)

    def _words(self, texts: list[str]) -> Iterator[tuple[str, str, np.ndarray]]:
        said = [set(_WORD.findall(text.lower())) for text in texts]
        counts = Counter(word for words in said for word in sorted(words))
        common = [word for word, count in counts.most_common() if self.least <= count <= len(texts) / 2]
        for word in common[: self.words]:
            yield "word", word, np.asarray([word in words for words in said])


def _values(name: str, values: list[Any]) -> Iterator[tuple[str, str, np.ndarray]]:
    """A group for each value; of numbers with many values, a group for each quarter."""
    known = [value for value in values if value is not None]
    numbers = [_number(value) for value in known]
    if len(set(known)) > 20 and name != "class" and all(number is not None for number in numbers):
        yield from _quarters(name, np.asarray([np.nan if v is None else float(v) for v in values]))
        return
    column = np.asarray(values, dtype=object)
    for value in sorted(set(known)):
        yield name, str(value), column == value


def _number(value: str) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None


def _quarters(name: str, numbers: np.ndarray) -> Iterator[tuple[str, str, np.ndarray]]:
    """Four groups of like size by size of a number; fewer where many numbers are alike."""
    edges = np.unique(np.nanquantile(numbers, [0, 0.25, 0.5, 0.75, 1]))
    for i, (low, high) in enumerate(pairwise(edges)):
        inside = (numbers >= low) if i == 0 else (numbers > low)
        yield name, f"{low:g} to {high:g}" if i == 0 else f"above {low:g} to {high:g}", inside & (numbers <= high)
