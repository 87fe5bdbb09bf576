"""Which values the next trial gets: a function of the trials before it and of nothing else.

So a study needs no state of its own. Killed and started again, it proposes the same values for the same trials,
and those that are finished are found finished.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from limbeck.core.errors import MissingExtra
from limbeck.core.recipe import Between, Choices, Sweep, Tune

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

Values = dict[str, Any]
"""A trial's values by path."""
Space = Mapping[str, Sweep | Between | Choices]


@dataclass(frozen=True)
class Tried:
    """A trial as a sampler sees it.

    Attributes:
        values: by path.
        score: higher is better; None for a trial that failed.
    """

    values: Values
    score: float | None


class Sampler(Protocol):
    """Proposes values."""

    total: int

    def values(self, tried: Sequence[Tried]) -> Values:
        """What the trial after these gets."""


def make_sampler(plan: Tune) -> Sampler:
    """The sampler that a recipe asks for.

    Raises:
        MissingExtra: it is Optuna's, and Optuna is not installed.
    """
    return Grid(plan.space) if plan.sampler == "grid" else Tpe(plan.space, plan.size, plan.seed)


class Grid:
    """Every combination; the last key of the space changes first."""

    def __init__(self, space: Space):
        self.all = combinations({key: points(axis) for key, axis in space.items()})
        self.total = len(self.all)

    def values(self, tried: Sequence[Tried]) -> Values:
        """The next one in order, whatever came of those before."""
        return self.all[len(tried)]


class Tpe:
    """Optuna's tree-structured Parzen estimator: values like those of good trials, unlike those of bad ones.

    A model of good and one of bad trials' values are fitted, and the values with the largest ratio of the two
    densities are taken. The first ten trials are random.

    Args:
        space: what may be chosen.
        total: number of trials.
        seed: of all draws.

    Reference:
        Bergstra et al., "Algorithms for Hyper-Parameter Optimization", NeurIPS 2011
    """

    def __init__(self, space: Space, total: int, seed: int):
        try:
            import optuna
        except ImportError:
            raise MissingExtra("tune.sampler: tpe", "tune") from None
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.space, self.total, self.seed = space, total, seed
        self.distributions = {key: _distribution(axis) for key, axis in space.items()}

    def values(self, tried: Sequence[Tried]) -> Values:
        """A draw seeded by the trial's number, from a study that is made anew of the trials before it."""
        import optuna

        (seed,) = np.random.SeedSequence([self.seed, len(tried)]).generate_state(1)
        sampler = optuna.samplers.TPESampler(seed=int(seed))
        study = optuna.create_study(sampler=sampler, direction="maximize")
        study.add_trials([self._frozen(each) for each in tried])
        drawn = study.ask(self.distributions).params
        return {key: self._value(axis, drawn[key]) for key, axis in self.space.items()}

    def _value(self, axis: Sweep | Between | Choices, drawn: Any) -> Any:
        return axis.readable(drawn) if isinstance(axis, Between) else axis.points()[drawn]

    def _frozen(self, each: Tried) -> FrozenTrial:
        from optuna.trial import TrialState, create_trial

        params = {
            key: each.values[key] if isinstance(axis, Between) else axis.points().index(each.values[key])
            for key, axis in self.space.items()
        }
        state = TrialState.FAIL if each.score is None else TrialState.COMPLETE
        return create_trial(state=state, params=params, distributions=self.distributions, value=each.score)


def _distribution(axis: Sweep | Between | Choices) -> BaseDistribution:
    """Points are drawn by position: a sweep's have an order, choices have none."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(axis, Between):
        return FloatDistribution(axis.low, axis.high, log=axis.log)
    last = len(axis.points()) - 1
    return IntDistribution(0, last) if isinstance(axis, Sweep) else CategoricalDistribution(range(last + 1))


def points(axis: Sweep | Between | Choices) -> list[Any]:
    """Every value of an axis; of a stretch its two ends."""
    return [axis.low, axis.high] if isinstance(axis, Between) else axis.points()


def combinations(axes: Mapping[str, Sequence[Any]]) -> list[Values]:
    """Every combination of values, the last key changing first."""
    return [dict(zip(axes, each, strict=True)) for each in itertools.product(*axes.values())]
