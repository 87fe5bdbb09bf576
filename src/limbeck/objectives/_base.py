"""What every objective is: a weighted term of a stage's loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from limbeck.core.parts import Part, part
from limbeck.core.schedules import AnySchedule, Constant
from limbeck.core.types import Needs

if TYPE_CHECKING:
    from torch import Tensor

    from limbeck.objectives._chunked import Chunk


@part
class Objective(Part, ABC):
    """A term of the loss. It gives the sum over its units; the step divides by their number, once."""

    weight: AnySchedule = Field(default_factory=lambda: Constant(value=1.0))
    """Its share in the total, a number or a schedule over the stage."""
    name: str | None = None
    """What the log calls it; needed only where a stage holds two terms of one type."""

    asks_teacher: ClassVar[bool] = False

    @property
    def label(self) -> str:
        """The name in the log."""
        return self.name or self.type()

    @property
    def student(self) -> Needs:
        """What the student must show."""
        return Needs(dist=True)

    @property
    def teacher(self) -> Needs:
        """What the teacher must show."""
        return Needs(dist=self.asks_teacher)


@part
class DistributionTerm(Objective, ABC):
    """A divergence between what student and teacher (or a label) say of one row.

    A new one is a formula on a chunk of rows: the driver keeps its memory flat, drops masked rows before
    the matrix product, and shares the logits with every other term of the stage.
    """

    @abstractmethod
    def rows(self, chunk: Chunk) -> Tensor:
        """The term's value for each row, [N], in `chunk`'s own precision (float32, or float64 for float64 models)."""
