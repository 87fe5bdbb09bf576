"""Temperatures: what softens student and teacher before they are compared.

Shapes: N rows, S classes that student and teacher share.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from limbeck.core.parts import Part, PartOf, part
from limbeck.core.schedules import AnySchedule
from limbeck.objectives.base import DistributionTerm

if TYPE_CHECKING:
    from limbeck.objectives.chunked import Chunk


@part
class Temperature(Part, ABC):
    """Softens both distributions of a term."""

    @property
    def needs_all_classes(self) -> bool:
        """Whether it reads every class of the teacher, and not only the likeliest."""
        return False

    def module(self) -> nn.Module | None:
        """What is learned of it, trained beside the student; None where nothing is."""
        return None

    @abstractmethod
    def at(self, chunk: Chunk, label: str) -> float | Tensor:
        """The temperature of a chunk's rows for the term with this label: a number, a scalar, or one a row [N, 1]."""


@part
class Fixed(Temperature):
    """The same for all rows, all along. A bare number in a recipe."""

    value: float = Field(gt=0)
    """The temperature; 1 leaves the distributions as they are."""

    def at(self, chunk: Chunk, label: str) -> float:
        return self.value

    @classmethod
    def shorthand(cls, value: Any) -> dict[str, Any] | None:
        return {"value": value} if isinstance(value, int | float) and not isinstance(value, bool) else None


@part
class Scheduled(Temperature):
    """The same for all rows, on a schedule over the stage."""

    value: AnySchedule
    """The schedule, for instance `{type: linear, start: 4, end: 1}`."""

    @model_validator(mode="after")
    def _stays_above_zero(self) -> Scheduled:
        if self.value.type() == "plateau":
            raise ValueError("a temperature cannot wait for a plateau; take linear, cosine or step")
        if lowest := [at for at in range(101) if self.value(at / 100) <= 0]:
            raise ValueError(f"the temperature must stay above zero; it is {self.value(lowest[0] / 100):g} on the way")
        return self

    def at(self, chunk: Chunk, label: str) -> float:
        return self.value(chunk.progress)


@part
class PerSample(Temperature):
    """One for each row, from how far a model's logits are spread: where it is sure, it is softened more.

    T = factor * s, kept within `low` and `high`, without gradient: s = std_v z[v] (`std`, variance divided by V), or
    s = max_v z[v] - mean_v z[v] (`max`), which tells better how much entropy is left at T where classes are many.
    Both models of a row share one T; `standardized_kl` gives each its own.

    Reference:
        Chi et al., NormKD: Normalized Logits for Knowledge Distillation, 2023, arXiv:2308.00520 (std); Luong et al.,
        Consistently Informative Soft-Label Temperature for Knowledge Distillation, 2026, arXiv:2605.20357 (max).
    """

    factor: float = Field(default=1.0, gt=0)
    """The temperature at a spread of 1."""
    by: Literal["std", "max"] = "std"
    """How the spread is measured."""
    of: Literal["teacher", "student"] = "teacher"
    """Whose logits."""
    low: float = Field(default=1.0, gt=0)
    """Never below this."""
    high: float = Field(default=10.0, gt=0)
    """Never above this."""

    @model_validator(mode="after")
    def _in_order(self) -> PerSample:
        if self.low > self.high:
            raise ValueError(f"low is above high: {self.low:g} > {self.high:g}")
        return self

    @property
    def needs_all_classes(self) -> bool:
        return True

    def at(self, chunk: Chunk, label: str) -> Tensor:
        # Log-probabilities are logits minus a constant, which no spread sees.
        logits_NS = (chunk.teacher(1.0) if self.of == "teacher" else chunk.student(1.0)).detach()
        if self.by == "std":
            spread_N1 = logits_NS.std(dim=1, correction=0, keepdim=True)
        else:
            spread_N1 = logits_NS.amax(dim=1, keepdim=True) - logits_NS.mean(dim=1, keepdim=True)
        return (self.factor * spread_N1).clamp(self.low, self.high)


@part
class Learned(Temperature):
    """Learned against the student: it moves to where the two models differ most (CTKD).

    T = low + (high - low) sigmoid(theta), theta a number that is trained with the student but on the gradient times
    -lambda. lambda rises from 0 to 1 on half a cosine over the first `rise` of the stage, from easy to hard. Under
    AdamW, which divides by the gradient's size, lambda matters less than in the paper's SGD.

    Reference:
        Li et al., Curriculum Temperature for Knowledge Distillation, 2023, arXiv:2211.16231.
    """

    low: float = Field(default=1.0, gt=0)
    """The bound below."""
    high: float = Field(default=21.0, gt=0)
    """The bound above. The paper's range is 1 to 21."""
    initial: float = Field(default=4.0, gt=0)
    """Where it starts."""
    rise: float = Field(default=0.04, ge=0, le=1)
    """Share of the stage over which lambda rises; the paper took 10 of 240 epochs."""
    speed: float = Field(default=10.0, gt=0)
    """How many times faster theta learns than the student's weights."""

    @model_validator(mode="after")
    def _in_order(self) -> Learned:
        if not self.low < self.initial < self.high:
            raise ValueError(f"not low < initial < high: {self.low:g}, {self.initial:g}, {self.high:g}")
        return self

    def module(self) -> LearnedTemperature:
        return LearnedTemperature(self)

    def at(self, chunk: Chunk, label: str) -> Tensor:
        return chunk.learned[label]


class LearnedTemperature(nn.Module):
    """The number behind a learned temperature.

    Args:
        config: bounds and pace.
    """

    def __init__(self, config: Learned):
        super().__init__()
        self.config = config
        share = (config.initial - config.low) / (config.high - config.low)
        # One dimension, since sharding strategies refuse parameters without any.
        self.theta = nn.Parameter(torch.tensor([math.log(share / (1 - share)) / config.speed]))

    def forward(self, progress: float) -> Tensor:
        """The temperature, a scalar; what it gets as a gradient reaches `theta` reversed, times lambda.

        Args:
            progress: share of the stage that is done.
        """
        config = self.config
        done = min(1.0, progress / config.rise) if config.rise else 1.0
        strength = (1 - math.cos(math.pi * done)) / 2 / config.speed
        reversed_ = self.theta.detach() * (1 + strength) - strength * self.theta
        share = torch.sigmoid(config.speed * reversed_).squeeze(0)
        return config.low + (config.high - config.low) * share


AnyTemperature = Annotated[Temperature, PartOf("temperature")]


@part
class Tempered(DistributionTerm, ABC):
    """A distribution term that softens student and teacher before it compares them."""

    temperature: AnyTemperature = Field(default_factory=lambda: Fixed(value=1.0))
    """Softens both distributions: a number, or how it changes; 1 leaves them as they are."""

    asks_teacher: ClassVar[bool] = True

    @property
    def needs_all_classes(self) -> bool:
        return self.temperature.needs_all_classes

    def at(self, chunk: Chunk) -> float | Tensor:
        """The temperature of a chunk's rows: a number, a scalar, or one for each row [N, 1]."""
        return self.temperature.at(chunk, self.label)


def per_row(temperature: float | Tensor) -> float | Tensor:
    """A temperature as a factor of values [N]."""
    if isinstance(temperature, float | int) or temperature.ndim == 0:
        return temperature
    return temperature.squeeze(1)
