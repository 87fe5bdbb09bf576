"""Schedules: a value that changes over a stage. Each maps progress in [0, 1] to a number.

A bare number in a recipe is a `constant`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from itertools import pairwise
from typing import Annotated, Any

from pydantic import Field, model_validator

from limbeck.core.parts import Part, PartOf, part


class Schedule(Part, ABC):
    """A function of a stage's progress."""

    @abstractmethod
    def __call__(self, progress: float) -> float:
        """The value when a share `progress` of the stage is done."""

    def after(self, progress: float, stalls: int) -> float:
        """The same when `stalls` validations of the stage have brought nothing better."""
        return self(progress)


@part
class Constant(Schedule):
    """The same value all along."""

    value: float

    def __call__(self, progress: float) -> float:
        return self.value

    @classmethod
    def shorthand(cls, value: Any) -> dict[str, Any] | None:
        return {"value": value} if isinstance(value, int | float) and not isinstance(value, bool) else None


@part
class Linear(Schedule):
    """A straight line from `start` to `end`."""

    start: float
    end: float

    def __call__(self, progress: float) -> float:
        return self.start + (self.end - self.start) * progress


@part
class Cosine(Schedule):
    """Half a cosine from `start` to `end`: slow, fast, slow."""

    start: float
    end: float

    def __call__(self, progress: float) -> float:
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * progress)) / 2


@part
class Plateau(Schedule):
    """`start` times `factor` for every `patience` validations that brought nothing better; never below `end`."""

    start: float
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.5
    patience: Annotated[int, Field(gt=0)] = 1
    end: float = 0.0

    def __call__(self, progress: float) -> float:
        return self.start

    def after(self, progress: float, stalls: int) -> float:
        return max(self.end, self.start * self.factor ** (stalls // self.patience))


@part
class Step(Schedule):
    """Jumps: `values[i]` holds until progress reaches `boundaries[i]`, the last one to the end."""

    boundaries: list[Annotated[float, Field(gt=0, lt=1)]]
    values: list[float]

    @model_validator(mode="after")
    def _check(self) -> Step:
        if len(self.values) != len(self.boundaries) + 1:
            raise ValueError(f"{len(self.boundaries)} boundaries need {len(self.boundaries) + 1} values")
        if any(a >= b for a, b in pairwise(self.boundaries)):
            raise ValueError("boundaries must rise")
        return self

    def __call__(self, progress: float) -> float:
        return self.values[sum(progress >= b for b in self.boundaries)]


AnySchedule = Annotated[Schedule, PartOf("schedule")]
"""The type of a field that takes a schedule, or a bare number."""
