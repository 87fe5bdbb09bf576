"""The search: which of the recipe's values are tried, and what decides between them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from limbeck.core.recipe.section import Section

MOST_POINTS = 10_000
"""A sweep or a grid with more points than this is taken for a slip of the pen."""


class Sweep(Section):
    """Numbers at equal distances: `{start: 1, stop: 8, step: 0.5}`."""

    start: int | float
    """The first one."""
    stop: int | float
    """The last one, if the steps lead there."""
    step: Annotated[int | float, Field(gt=0)]
    """From one to the next."""

    @model_validator(mode="after")
    def _some_points(self) -> Self:
        if self.stop < self.start:
            raise ValueError(f"`stop` lies below `start`: {self.stop} < {self.start}")
        if (self.stop - self.start) / self.step >= MOST_POINTS:
            raise ValueError(f"at most {MOST_POINTS:,} points; `step` is too small")
        return self

    def points(self) -> list[Any]:
        """Every value, in decimal arithmetic: 1 by 0.1 meets 1.3 and not 1.3000000000000003."""
        start, stop, step = (Decimal(str(value)) for value in (self.start, self.stop, self.step))
        whole = all(isinstance(value, int) for value in (self.start, self.stop, self.step))
        found = [start + i * step for i in range(int((stop - start) // step) + 1)]
        return [int(value) if whole else float(value) for value in found]


class Between(Section):
    """Any number between two: `{low: 1e-4, high: 1e-2, log: true}`."""

    low: float
    """The smallest."""
    high: float
    """The largest."""
    log: bool = False
    """Draw by the logarithm: 1e-4 to 1e-3 is as likely as 1e-3 to 1e-2."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"`low` must lie below `high`, got {self.low} and {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"with `log: true` both ends are above zero, got {self.low}")
        return self

    def readable(self, value: float) -> float:
        """A number drawn, cut to four digits, that people may copy; never beyond the ends."""
        return min(max(float(f"{value:.4g}"), self.low), self.high)


class Choices(Section):
    """Values of any kind: `{choices: [[0, 5], [2, 5]]}`."""

    choices: Annotated[list[Any], Field(min_length=1)]
    """Each is what the recipe itself would say."""

    def points(self) -> list[Any]:
        """Every value."""
        return list(self.choices)


def _by_its_keys(value: Any) -> Any:
    """Told apart here, so that an error speaks of the form that was meant."""
    if isinstance(value, Mapping):
        for form in (Choices, Sweep, Between):
            if any(key in form.model_fields for key in value):
                return form.model_validate(value)
    if isinstance(value, Section):
        return value
    raise ValueError(f"{{start, stop, step}}, {{low, high}} or {{choices: [...]}} is wanted, got {value!r}")


Axis = Annotated[Sweep | Between | Choices, BeforeValidator(_by_its_keys)]


class Tune(Section):
    """A search for better values of the recipe's own keys, by `limbeck tune`. `limbeck run` does not look at it."""

    sampler: Literal["grid", "tpe"] = "grid"
    """`grid`: every combination. `tpe`: Optuna's tree-structured Parzen estimator, which learns from trial to trial."""
    trials: Annotated[int, Field(gt=0)] | None = None
    """How many, with `tpe`. Left out: 20."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Draws the values, with `tpe`. Not the recipe's `seed`, which is the same in all trials."""
    metric: Literal["accuracy", "loss"] | None = None
    """What decides, on the validation rows. Left out: accuracy for classifiers, loss for language models."""
    space: Annotated[dict[str, Axis], Field(min_length=1)]
    """By path, as on the command line (`stages.distil.terms.kl.temperature`): `{start, stop, step}`, `{choices: [...]}`
    or, with `tpe`, `{low, high, log}`."""

    @model_validator(mode="after")
    def _sampler_can(self) -> Self:
        if self.sampler == "tpe":
            return self
        if self.trials is not None:
            raise ValueError("a grid tries all of its points; `trials` goes with `sampler: tpe`")
        if endless := [key for key, axis in self.space.items() if isinstance(axis, Between)]:
            what = f"a grid needs points, but {', '.join(endless)} may be any number between two"
            raise ValueError(f"{what}; give start, stop and step, or choices, or take `sampler: tpe`")
        if self.size > MOST_POINTS:
            raise ValueError(f"the grid has {self.size:,} points, at most {MOST_POINTS:,}; take `sampler: tpe`")
        return self

    @property
    def size(self) -> int:
        """How many trials there will be."""
        if self.sampler == "tpe":
            return self.trials or 20
        return math.prod(1 if isinstance(axis, Between) else len(axis.points()) for axis in self.space.values())
