"""Answers that came to nothing: unreadable, cut off, empty."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from limbeck.core.parts import part
from limbeck.evaluation.book import Book
from limbeck.evaluation.metrics._base import OfEach
from limbeck.evaluation.predictions import Predictions
from limbeck.evaluation.statistics import mean
from limbeck.verification.answers import without_thought


@part
class AnswerRates(OfEach):
    """The shares of answers that hold no final answer, ran into the limit of new tokens, or say nothing.

    `unparsed_answers`, `unfinished_answers` and `empty_answers`; an answer is empty if nothing but white space stands
    outside of its thought, or the thought never ends.
    """

    wants: ClassVar[tuple[str, ...]] = ("text",)

    def one(self, book: Book, name: str, table: Predictions) -> None:
        for column, title in (("parsed", "unparsed_answers"), ("finished", "unfinished_answers")):
            if column in table:
                book.estimate(name, "accuracy", title, "share", mean, 1 - table.numbers(column))
        empty = [not (without_thought(text or "") or "").strip() for text in table["text"]]
        book.estimate(name, "accuracy", "empty_answers", "share", mean, np.asarray(empty, dtype=float))
