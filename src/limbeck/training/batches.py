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
    """The samples of every step.

    Args:
        lengths: the length of each sample.
        batch_size: samples in one step, over all processes.
        seed: draws the order.
        by_length: put samples of like length into one batch.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int, by_length: bool):
        self.lengths = np.asarray(lengths)
        self.batch_size, self.seed, self.by_length = batch_size, seed, by_length
        self._window = lru_cache(maxsize=2)(self._make_window)
        self._epoch = lru_cache(maxsize=2)(self._make_epoch)

    def step(self, number: int) -> list[int]:
        """Positions of the samples of a step, longest first where lengths differ."""
        window, place = divmod(number, WINDOW)
        return self._window(window)[place].tolist()

    def _make_epoch(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self.seed, 0, epoch]).permutation(len(self.lengths))

    def _make_window(self, window: int) -> np.ndarray:
        """The samples of WINDOW steps, [WINDOW, batch_size]."""
        count, size = len(self.lengths), WINDOW * self.batch_size
        places = np.arange(window * size, (window + 1) * size)
        epochs, places = np.divmod(places, count)
        drawn = np.concatenate([self._epoch(int(e))[places[epochs == e]] for e in np.unique(epochs)])
        if not self.by_length or self.lengths.min() == self.lengths.max():
            return drawn.reshape(WINDOW, self.batch_size)
        drawn = drawn[np.argsort(-self.lengths[drawn], kind="stable")].reshape(WINDOW, self.batch_size)
        return np.random.default_rng([self.seed, 1, window]).permutation(drawn)


def share(batch: Sequence[int], rank: int, world: int, micro: int) -> list[list[int]]:
    """A process's micro-batches of a step; dealt like cards, so that every process gets like lengths."""
    mine = batch[rank::world]
    return [list(mine[i : i + micro]) for i in range(0, len(mine), micro)]
