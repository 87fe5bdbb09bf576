"""Which samples make up which optimizer step: a function of seed and step alone.

The order depends on neither the number of processes, nor micro-batches, nor kills. Every step has exactly
`global_batch_size` samples; a batch may cross from one epoch into the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

WINDOW = 50
"""Steps whose samples are sorted by length together; longer gives less padding and less random batches."""


class Order:
    """The samples of every step of a stage.

    The samples are drawn epoch by epoch. Sorting by length moves a sample only within its window, and a window is
    no longer than an epoch and ends with the stage: so every sample is seen as often as every other, give or take
    one, and hardly ever twice in a batch.

    Args:
        lengths: the length of each sample.
        batch_size: samples in one step, over all processes.
        steps: steps of the stage.
        seed: draws the order; one or more numbers.
        by_length: put samples of like length into one batch.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, steps: int, seed: Sequence[int], by_length: bool):
        self.lengths = np.asarray(lengths)
        self.batch_size, self.steps, self.seed, self.by_length = batch_size, steps, list(seed), by_length
        self.window = max(1, min(WINDOW, len(lengths) // batch_size))
        self._window = lru_cache(maxsize=2)(self._make_window)
        self._epoch = lru_cache(maxsize=2)(self._make_epoch)

    def step(self, number: int) -> list[int]:
        """Positions of the samples of a step."""
        window, place = divmod(number, self.window)
        return self._window(window)[place].tolist()

    def _make_epoch(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([*self.seed, 0, epoch]).permutation(len(self.lengths))

    def _make_window(self, window: int) -> np.ndarray:
        """The samples of a window's steps, [steps, batch_size]."""
        first = window * self.window
        shape = (min(self.window, self.steps - first), self.batch_size)
        places = np.arange(first * self.batch_size, (first + shape[0]) * self.batch_size)
        epochs, places = np.divmod(places, len(self.lengths))
        drawn = np.concatenate([self._epoch(int(e))[places[epochs == e]] for e in np.unique(epochs)])
        if not self.by_length or self.lengths.min() == self.lengths.max():
            return drawn.reshape(shape)
        drawn = drawn[np.argsort(-self.lengths[drawn], kind="stable")].reshape(shape)
        return np.random.default_rng([*self.seed, 1, window]).permutation(drawn)


def share(batch: Sequence[int], rank: int, world: int, micro: int) -> list[list[int]]:
    """A process's micro-batches of a step; dealt like cards, so that every process gets like lengths."""
    mine = batch[rank::world]
    return [list(mine[i : i + micro]) for i in range(0, len(mine), micro)]
