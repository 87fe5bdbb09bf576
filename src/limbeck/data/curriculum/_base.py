"""What curricula have in common: how difficulty is measured, and which part of the rows is drawn from when."""

from __future__ import annotations

from abc import ABC, abstractmethod

from pydantic import Field, field_validator

from limbeck.core.parts import Part, part


@part
class Curriculum(Part, ABC):
    """From easy to difficult: which part of the rows, sorted by difficulty, a step draws from."""

    difficulty: str | dict[str, float] = "length"
    """The measure: `length`, `steps` of the worked answer, `student_loss` (of the student as the stage begins), or a
    column with numbers (`pass_rate`, a grade); or several with weights, `{steps: 2, length: 1}`, which are mixed by
    their ranks."""

    @field_validator("difficulty")
    @classmethod
    def _says_something(cls, value: str | dict[str, float]) -> str | dict[str, float]:
        if not isinstance(value, str) and not any(value.values()):
            raise ValueError("give at least one measure a weight that is not zero")
        return value

    @property
    def measures(self) -> dict[str, float]:
        """The measures of difficulty and how much each counts."""
        return {self.difficulty: 1.0} if isinstance(self.difficulty, str) else self.difficulty

    @abstractmethod
    def span(self, progress: float) -> tuple[float, float]:
        """From which to which share of the rows, easiest first, samples are drawn.

        Args:
            progress: how much of the stage is done, 0 to 1.

        Returns:
            Two numbers in [0, 1], the first one smaller.
        """


@part
class Bucketed(Curriculum, ABC):
    """A curriculum of equally large buckets of rows, each with an equal share of the stage's steps."""

    buckets: int = Field(default=4, ge=2)
    """Into how many parts of equal size the rows are cut, by difficulty."""

    def bucket(self, progress: float) -> int:
        """The most difficult bucket that has begun, from 0."""
        return min(self.buckets - 1, int(progress * self.buckets))
