"""Scores: one flat list of figures, each with its interval, computed from recorded predictions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from limbeck.core.recipe import Evaluate
from limbeck.evaluation.book import Book
from limbeck.evaluation.predict import Columns, column
from limbeck.evaluation.statistics import difference, mean, median_ratio, perplexity, ratio


@dataclass(frozen=True)
class Seen:
    """What is known of a model when scores are computed.

    Attributes:
        answers: predictions; None where a language model's answers are not graded.
        likelihoods: a language model's; None for classifiers.
        parameters: tied ones once.
        bytes: of the weights.
        milliseconds: of single requests [runs].
    """

    answers: Columns | None
    likelihoods: Columns | None
    parameters: int
    bytes: int
    milliseconds: np.ndarray[Any, Any]


def all_scores(models: Mapping[str, Seen], plan: Evaluate) -> list[dict[str, Any]]:
    """Every score of every model, in the order of axes.

    Args:
        models: `student`, and where they exist `teacher` and `baseline`.
        plan: split, level and number of draws of the intervals.
    """
    book = Book(plan)
    for name, seen in models.items():
        _accuracy(book, name, seen)
    teacher = models.get("teacher")
    if teacher is not None:
        for name, seen in models.items():
            if name != "teacher":
                _against_teacher(book, name, seen, teacher)
    if "baseline" in models:
        _against_baseline(book, models["student"], models["baseline"])
    for name, seen in models.items():
        _efficiency(book, name, seen, teacher)
    return book.rows()


def _accuracy(book: Book, name: str, seen: Seen) -> None:
    generated = seen.likelihoods is not None
    if seen.answers is not None:
        title = "answer_accuracy" if generated else "accuracy"
        book.estimate(name, "accuracy", title, "share", mean, column(seen.answers, "correct"))
        if generated:
            book.estimate(name, "accuracy", "unparsed_answers", "share", mean, 1 - column(seen.answers, "parsed"))
            book.estimate(name, "accuracy", "unfinished_answers", "share", mean, 1 - column(seen.answers, "finished"))
    if seen.likelihoods is not None:
        nll, tokens = column(seen.likelihoods, "nll"), column(seen.likelihoods, "tokens")
        book.estimate(name, "accuracy", "perplexity", "per token", perplexity, nll, tokens)


def _against_teacher(book: Book, name: str, seen: Seen, teacher: Seen) -> None:
    if seen.answers is None or teacher.answers is None:
        return
    # Two answers that could not be read do not agree on anything.
    pairs = zip(seen.answers["prediction"], teacher.answers["prediction"], strict=True)
    same = np.asarray([a == b and a is not None for a, b in pairs], dtype=float)
    book.estimate(name, "agreement", "agreement_with_teacher", "share", mean, same)
    mine, theirs = column(seen.answers, "correct"), column(teacher.answers, "correct")
    book.estimate(name, "comparison", "kept_of_teacher", "ratio", ratio, mine, theirs)


def _against_baseline(book: Book, student: Seen, baseline: Seen) -> None:
    if student.answers is not None and baseline.answers is not None:
        columns = column(student.answers, "correct"), column(baseline.answers, "correct")
        book.estimate("student", "comparison", "student_minus_baseline", "share", difference, *columns)
    if student.likelihoods is not None and baseline.likelihoods is not None:
        columns = column(student.likelihoods, "nll"), column(baseline.likelihoods, "nll")
        tokens = column(student.likelihoods, "tokens")

        def log_ratio(x: Any, y: Any, t: Any, axis: int) -> Any:
            return (x.sum(axis) - y.sum(axis)) / t.sum(axis)

        name = "log_perplexity_minus_baseline"
        book.estimate("student", "comparison", name, "nats per token", log_ratio, *columns, tokens)


def _efficiency(book: Book, name: str, seen: Seen, teacher: Seen | None) -> None:
    book.exact(name, "efficiency", "parameters", "parameters", seen.parameters, 1)
    book.exact(name, "efficiency", "bytes", "bytes", seen.bytes, 1)
    runs = len(seen.milliseconds)
    for share in (50, 95):
        value = float(np.percentile(seen.milliseconds, share))
        book.exact(name, "efficiency", f"latency_p{share}", "ms", value, runs)
    if teacher is not None and name != "teacher":
        book.exact(name, "efficiency", "size_ratio", "x", teacher.parameters / seen.parameters, 1)
        pair = teacher.milliseconds, seen.milliseconds
        book.estimate(name, "efficiency", "speedup", "x", median_ratio, *pair)
