"""What metrics have in common: tables of predictions in, figures into a book."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from limbeck.core.parts import Part, part
from limbeck.evaluation.book import Book
from limbeck.evaluation.predictions import Predictions

TEACHER, BASELINE = "teacher", "baseline"
"""Names of the models that others are compared with."""


@dataclass(frozen=True)
class Tables:
    """Predictions of several models.

    Attributes:
        models: each sample's first answer; row i of every table is about the same sample.
        draws: all answers, of models that gave several to a sample.
        validation: predictions of other rows, by which something may be fitted.
    """

    models: Mapping[str, Predictions]
    draws: Mapping[str, Predictions] = field(default_factory=dict)
    validation: Mapping[str, Predictions] = field(default_factory=dict)

    @property
    def teacher(self) -> Predictions | None:
        """The teacher's table, if it is there."""
        return self.models.get(TEACHER)

    @property
    def taught(self) -> Iterator[tuple[str, Predictions]]:
        """All models but the teacher."""
        return ((name, table) for name, table in self.models.items() if name != TEACHER)


@part
class Metric(Part, ABC):
    """Figures of recorded predictions: no model is asked again."""

    wants: ClassVar[tuple[str, ...]] = ()
    """Columns without which there is nothing to compute."""

    def fits(self, table: Predictions) -> bool:
        """Whether a table has what is wanted."""
        return all(name in table for name in self.wants)

    @abstractmethod
    def measure(self, book: Book, tables: Tables) -> None:
        """Write the figures of all models that this fits into the book."""


@part
class OfEach(Metric, ABC):
    """Figures of one model at a time."""

    def measure(self, book: Book, tables: Tables) -> None:
        for name, table in tables.models.items():
            if self.fits(table):
                self.one(book, name, table)

    @abstractmethod
    def one(self, book: Book, name: str, table: Predictions) -> None:
        """Write the figures of a model into the book."""


@part
class AgainstTeacher(Metric, ABC):
    """Figures of a model beside the teacher."""

    def measure(self, book: Book, tables: Tables) -> None:
        teacher = tables.teacher
        if teacher is None or not self.fits(teacher):
            return
        for name, table in tables.taught:
            if self.fits(table):
                self.pair(book, name, table, teacher)

    @abstractmethod
    def pair(self, book: Book, name: str, table: Predictions, teacher: Predictions) -> None:
        """Write the figures of a model beside the teacher into the book."""
