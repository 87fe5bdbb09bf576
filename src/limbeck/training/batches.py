"""Which samples make up which optimizer step: a function of seed and step alone.

The order depends on neither the number of processes, nor micro-batches, nor kills. Every step has exactly
`global_batch_size` samples; a batch may cross from one epoch into the next.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import numpy as np

from limbeck.core.errors import TrainingError
from limbeck.core.recipe import Stage
from limbeck.core.types import Sample
from limbeck.data.curriculum import Curriculum
from limbeck.data.difficulty import asks_student, difficulty
from limbeck.data.mixture import draws, parts_of, shares
from limbeck.tasks import Encoded

WINDOW = 50
"""Steps whose samples are sorted by length together; longer gives less padding and less random batches."""
GRAIN = 100
"""A curriculum moves on at least this many times in a stage, where the stage has so many steps."""

Span = Callable[[float], tuple[float, float]]
"""By progress: from which to which share of a part's rows samples are drawn."""


@dataclass(frozen=True)
class Pool:
    """Rows that a fixed number of samples of every step come from.

    Attributes:
        rows: their positions; under a curriculum the easiest first.
        draws: how many samples each step takes.
        name: what a mixture calls it.
    """

    rows: np.ndarray
    draws: np.ndarray
    name: str = ""


@dataclass(frozen=True)
class _Window:
    """Steps that are drawn together.

    Attributes:
        first: its first step.
        steps: how many.
        since: of each pool: the step since when the same of its rows are drawn from.
        ranges: of each pool: from which to which of its rows samples are drawn.
    """

    first: int
    steps: int
    since: tuple[int, ...]
    ranges: tuple[tuple[int, int], ...]


class Order:
    """The samples of every step of a stage.

    The samples are drawn epoch by epoch, in each pool by itself. Sorting by length moves a sample only within its
    window and its pool, and a window is no longer than an epoch and ends with the stage: so every sample of a pool
    is seen as often as every other, give or take one, and hardly ever twice in a batch. Under a curriculum this
    holds for as long as the same rows are drawn from.

    Args:
        lengths: the length of each sample.
        batch_size: samples in one step, over all processes.
        steps: steps of the stage.
        seed: draws the order; one or more numbers.
        by_length: put samples of like length into one batch.
        pools: where each step's samples come from; left out: all rows alike.
        span: the curriculum, which narrows the pools.
    """

    def __init__(
        self,
        lengths: Sequence[int] | np.ndarray,
        batch_size: int,
        steps: int,
        seed: Sequence[int],
        by_length: bool,
        pools: Sequence[Pool] | None = None,
        span: Span | None = None,
    ):
        self.lengths, self.steps, self.seed, self.span = np.asarray(lengths), steps, list(seed), span
        self.by_length = by_length and self.lengths.min() != self.lengths.max()
        self.planned = pools is not None or span is not None
        self.pools = pools or [Pool(np.arange(len(self.lengths)), np.full(steps, batch_size))]
        self.before = [np.concatenate([[0], np.cumsum(pool.draws)]) for pool in self.pools]
        self.windows = self._plan()
        self.starts = np.array([window.first for window in self.windows])
        self._window = lru_cache(maxsize=2)(self._make_window)
        self._epoch = lru_cache(maxsize=2 * len(self.pools))(self._make_epoch)

    def step(self, number: int) -> list[int]:
        """Positions of the samples of a step."""
        place = int(np.searchsorted(self.starts, number, side="right")) - 1
        rows: list[int] = self._window(place)[number - int(self.starts[place])].tolist()
        return rows

    def told(self) -> list[dict[str, Any]]:
        """Of each pool: its name, its rows, how many samples it gives to the stage, and how many epochs these are."""
        counts = [(pool, int(pool.draws.sum())) for pool in self.pools]
        return [{"part": p.name, "rows": len(p.rows), "samples": n, "epochs": n / len(p.rows)} for p, n in counts]

    def _plan(self) -> list[_Window]:
        """The windows: each as long as may be, no longer than an epoch of any pool."""
        longest = WINDOW if self.span is None else max(1, min(WINDOW, self.steps // GRAIN))
        found: list[_Window] = []
        first, since = 0, [0] * len(self.pools)
        while first < self.steps:
            ranges = tuple(self._range(pool, first) for pool in self.pools)
            for i, range_ in enumerate(ranges):
                if found and range_ != found[-1].ranges[i]:
                    since[i] = first
            steps = min(longest, self.steps - first)
            for before, (low, high) in zip(self.before, ranges, strict=True):
                last = int(np.searchsorted(before, before[first] + high - low, side="right")) - 1
                steps = min(steps, max(1, last - first))
            found.append(_Window(first, steps, tuple(since), ranges))
            first += steps
        return found

    def _range(self, pool: Pool, step: int) -> tuple[int, int]:
        """From which to which of its rows a pool is drawn from; never so few that a step would see one twice."""
        size = len(pool.rows)
        if self.span is None:
            return 0, size
        low, high = self.span(step / max(1, self.steps - 1))
        # The last bit of a product must not decide where a row belongs.
        begin, end = math.floor(low * size + 1e-6), math.ceil(high * size - 1e-6)
        least = min(size, max(1, int(pool.draws[step : step + WINDOW].max())))
        end = max(end, min(size, begin + least))
        return max(0, min(begin, end - least)), end

    def _make_epoch(self, pool: int, low: int, high: int, epoch: int) -> np.ndarray:
        stream = [2, pool, low, high, epoch] if self.planned else [0, epoch]
        return self.pools[pool].rows[low + np.random.default_rng([*self.seed, *stream]).permutation(high - low)]

    def _drawn(self, window: _Window, pool: int) -> np.ndarray:
        """The rows that a pool gives to a window, in the order of the draws."""
        before, (low, high) = self.before[pool], window.ranges[pool]
        places = np.arange(before[window.first], before[window.first + window.steps]) - before[window.since[pool]]
        epochs, places = np.divmod(places, high - low)
        found = [self._epoch(pool, low, high, int(e))[places[epochs == e]] for e in np.unique(epochs)]
        return np.concatenate([np.empty(0, dtype=np.int64), *found])

    def _make_window(self, place: int) -> list[np.ndarray]:
        """The samples of each of a window's steps."""
        window = self.windows[place]
        # chunk[s]: which stretch of the sorted rows falls to step s
        chunk = np.arange(window.steps)
        if self.by_length:
            chunk = np.random.default_rng([*self.seed, 1, place]).permutation(window.steps)
        found: list[list[np.ndarray]] = [[] for _ in chunk]
        for i, pool in enumerate(self.pools):
            rows = self._drawn(window, i)
            if self.by_length:
                rows = rows[np.argsort(-self.lengths[rows], kind="stable")]
            sizes = np.empty(window.steps, dtype=np.int64)
            sizes[chunk] = pool.draws[window.first : window.first + window.steps]
            pieces = np.split(rows, np.cumsum(sizes)[:-1])
            for step, each in enumerate(chunk):
                found[step].append(pieces[each])
        return [self._together(pieces) for pieces in found]

    def _together(self, pieces: list[np.ndarray]) -> np.ndarray:
        """A step's samples out of all pools, the longest first where lengths count."""
        rows = np.concatenate(pieces)
        if len(pieces) == 1 or not self.by_length:
            return rows
        return rows[np.argsort(-self.lengths[rows], kind="stable")]


def goes_by_student(stage: Stage, train: Encoded) -> bool:
    """Whether a stage's curriculum asks for the student's loss on each row, see `row_losses`."""
    return stage.curriculum is not None and asks_student(_sources(train), cast(Curriculum, stage.curriculum).measures)


def order_of(
    stage: Stage, train: Encoded, steps: int, seed: Sequence[int], losses: Sequence[float] | None = None
) -> Order:
    """The order of a stage's samples, with its mixture and its curriculum.

    Args:
        stage: what the recipe says.
        train: its training rows.
        steps: its optimizer steps.
        seed: draws the order; the run's, and the stage's place.
        losses: of the student on each row, for a curriculum that goes by them.

    Raises:
        RecipeError: the rows do not fit the mixture or the curriculum.
    """
    lengths = np.array([feature.length for feature in train.features])
    size, by_length = stage.global_batch_size, stage.group_by_length
    if stage.mixture is None and stage.curriculum is None:
        return Order(lengths, size, steps, seed, by_length)
    samples = _sources(train)
    names, rows, counts = [""], [np.arange(len(lengths))], np.full((steps, 1), size)
    if stage.mixture is not None:
        names, weights = list(stage.mixture.weights), stage.mixture.weights
        rows, counts = parts_of(samples, stage.mixture.by, weights), draws(shares(weights, steps), size, seed)
    span = None
    if stage.curriculum is not None:
        curriculum = cast(Curriculum, stage.curriculum)
        hard, span = difficulty(samples, curriculum.measures, lengths, losses), curriculum.span
        # Rows that are equally difficult come in a random order, not in the source's.
        chance = np.random.default_rng([*seed, 3]).random(len(hard))
        rows = [part[np.lexsort((chance[part], hard[part]))] for part in rows]
    pools = [Pool(part, counts[:, i], name) for i, (part, name) in enumerate(zip(rows, names, strict=True))]
    return Order(lengths, size, steps, seed, by_length, pools, span)


def _sources(train: Encoded) -> list[Sample]:
    samples = [feature.source for feature in train.features if feature.source is not None]
    if len(samples) < len(train.features):
        raise TrainingError("the task keeps no samples, so that rows cannot be mixed or sorted by difficulty")
    return samples


def share(batch: Sequence[int], rank: int, world: int, micro: int) -> list[list[int]]:
    """A process's micro-batches of a step; dealt like cards, so that every process gets like lengths."""
    mine = batch[rank::world]
    return [list(mine[i : i + micro]) for i in range(0, len(mine), micro)]
