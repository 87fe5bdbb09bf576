"""What is kept of the teacher's score, what is gained over the baseline, and whether chance explains the difference."""

from __future__ import annotations

from typing import ClassVar

from limbeck.core.parts import part
from limbeck.evaluation.book import Book
from limbeck.evaluation.metrics._base import BASELINE, TEACHER, Metric, Tables
from limbeck.evaluation.statistics import difference, holm, mcnemar, ratio


@part
class Retention(Metric):
    """Accuracy beside the teacher's and the baseline's on the same rows: paired bootstrap and McNemar's exact test.

    `kept_of_teacher` is a ratio, absent where the teacher has nothing right; `student_minus_teacher` and
    `student_minus_baseline` are differences of shares, of whatever model the row names. The p values
    (`mcnemar_p_teacher`, `mcnemar_p_baseline`) are corrected for all the pairs of the table.

    Reference:
        Dietterich, Approximate Statistical Tests for Comparing Supervised Classification Learning Algorithms, 1998.
    """

    wants: ClassVar[tuple[str, ...]] = ("correct",)

    def measure(self, book: Book, tables: Tables) -> None:
        models = {name: table.correct for name, table in tables.models.items() if self.fits(table)}
        if TEACHER in models and models[TEACHER].any():
            for name in (name for name in models if name != TEACHER):
                book.estimate(name, "comparison", "kept_of_teacher", "ratio", ratio, models[name], models[TEACHER])
        found = []
        for name in (name for name in models if name not in (TEACHER, BASELINE)):
            for other in (other for other in (TEACHER, BASELINE) if other in models):
                pair = models[name], models[other]
                book.estimate(name, "comparison", f"student_minus_{other}", "share", difference, *pair)
                found.append((name, other, mcnemar(*pair), len(pair[0])))
        for (name, other, _, n), p in zip(found, holm([p for _, _, p, _ in found]), strict=True):
            book.exact(name, "comparison", f"mcnemar_p_{other}", "p", p, n)
