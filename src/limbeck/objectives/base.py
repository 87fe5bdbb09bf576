"""What every objective is: a weighted term of a stage's loss.

Shapes: B batch, T positions, D hidden width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import torch
from pydantic import Field
from torch import nn

from limbeck.core.parts import Part, part
from limbeck.core.schedules import AnySchedule, Constant
from limbeck.core.types import Batch, Dist, Unit

if TYPE_CHECKING:
    from torch import Tensor

    from limbeck.objectives.chunked import Chunk


@part
class Objective(Part, ABC):
    """A term of the loss. It gives the sum over its units; the step divides by their number, once."""

    weight: AnySchedule = Field(default_factory=lambda: Constant(value=1.0))
    """Its share in the total, a number or a schedule over the stage."""
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_ -]*$")] | None = None
    """What the log calls it; needed only where a stage holds two terms of one type."""

    asks_teacher: ClassVar[bool] = False
    unit: ClassVar[Unit] = "label"

    @property
    def reads_labels(self) -> bool:
        """Whether it depends on what the labels are, and not only on where they stand."""
        return False

    @property
    def takes_blends(self) -> bool:
        """Whether it can learn from samples that were blended of two, which have two labels."""
        return True

    @property
    def label(self) -> str:
        """The name in the log."""
        return self.name or self.type()


@part
class DistributionTerm(Objective, ABC):
    """A divergence between what student and teacher (or a label) say of one row.

    A new one is a formula on a chunk of rows: the driver keeps its memory flat, drops masked rows before
    the matrix product, and shares the logits with every other term of the stage.
    """

    linear_in_teacher: ClassVar[bool] = False
    """Whether its gradient is linear in the teacher's probabilities, so that classes drawn from it give it unbiased."""

    @property
    def needs_all_classes(self) -> bool:
        """Whether it reads every class of the teacher, so that its likeliest classes alone are not enough."""
        return False

    @abstractmethod
    def rows(self, chunk: Chunk) -> Tensor:
        """The term's value for each row, [N], in `chunk`'s own precision (float32, or float64 for float64 models)."""

    def slopes(self, chunk: Chunk, scale_N1: Tensor, out_NV: Tensor | None) -> Tensor | None:
        """The same values in closed form, if there is one; `rows` is what defines the term.

        Args:
            chunk: rows without gradients.
            scale_N1: what each row's gradient is multiplied by.
            out_NV: where scale times d value / d logits is added; None: only values are wanted.

        Returns:
            The values, [N]; None where there is no closed form for this chunk, with `out_NV` untouched.
        """
        return None


@dataclass(frozen=True)
class Layer:
    """A layer that a feature term reads.

    Attributes:
        path: the module's full name in its model.
        taps: what is read there, as `models.taps` writes it; one, or several where a term needs more (Q, K and V).
        shapes: the shape of each as seen in a dry run, with the dry run's batch and length.
        config: the model's config (number of heads and the like).
    """

    path: str
    taps: tuple[str, ...]
    shapes: tuple[torch.Size, ...]
    config: object


@dataclass(frozen=True)
class Pair:
    """A student's layer and the teacher's layer that it learns from; None where a term reads the student alone."""

    student: Layer
    teacher: Layer | None


@dataclass(frozen=True)
class Context:
    """What a batch loss may know besides the features.

    Attributes:
        batch: the samples; `batch.real` [B, T] says which positions are no padding, if it is known.
        progress: share of the stage that is done.
        weights: the teacher's say in each sample [B]; None: all the same.
        said: the student's distribution, for terms with `reads_dist`.
        told: the teacher's, for terms with `reads_dist` that ask the teacher.
    """

    batch: Batch
    progress: float = 0.0
    weights: Tensor | None = None
    said: Dist | None = None
    told: Dist | None = None


class FeatureLoss(nn.Module, ABC):
    """A feature term at work: it may hold parameters (projectors), which are trained and not exported."""

    @abstractmethod
    def forward(
        self, student: Sequence[Sequence[Tensor]], teacher: Sequence[Sequence[Tensor]], context: Context
    ) -> Tensor:
        """The term's sum over its units, a scalar in at least float32.

        Args:
            student: for every pair, what each tap of the student's layer gave: [B, T, D], [B, C, H, W], [B, D], ...
            teacher: the same of the teacher's layers, without gradients.
            context: the batch, and what else is known.
        """

    def between(self) -> list[str]:
        """For every pair, what stands between its layers, for the table: `none`, `linear 128 -> 384`, ..."""
        return []


@part
class BatchTerm(Objective, ABC):
    """A term that is computed on a batch as a whole by a module, which may hold parameters of its own."""

    unit: ClassVar[Unit] = "sample"
    adds_up: ClassVar[bool] = True
    """Whether the sum over two batches is that of both together; not so where samples are compared with each other."""
    packs: ClassVar[bool] = False
    """Whether it can read rows that hold several samples: it compares position by position."""
    reads_dist: ClassVar[bool] = False
    """Whether it reads what the student (and the teacher, if it asks it) says of the labels."""

    def pairs(self) -> Sequence[tuple[str, str | None]]:
        """Patterns of the student's and the teacher's layers that it reads; no teacher's where it asks none."""
        return ()

    def taps(self, path: str, model: nn.Module) -> tuple[str, ...]:
        """What is to be read at a matched path of a model: its output, unless a term needs more.

        Raises:
            ModelError: the module has not what the term needs.
        """
        return (path,)

    @abstractmethod
    def build(self, pairs: Sequence[Pair]) -> FeatureLoss:
        """The term at work on these layers.

        Raises:
            RecipeError: their shapes cannot be compared; the message shows them.
        """


@part
class FeatureTerm(BatchTerm, ABC):
    """A difference between layers of the student and layers of the teacher."""

    match: dict[str, str]
    """Which of the student's layers learns from which of the teacher's: paths with globs and ranges, for instance
    `"encoder.layer.{0..5}": "encoder.layer.{1,3,...,11}"`. `limbeck layers MODEL` prints them."""

    asks_teacher: ClassVar[bool] = True
    unit: ClassVar[Unit] = "position"

    def pairs(self) -> Sequence[tuple[str, str | None]]:
        return list(self.match.items())
