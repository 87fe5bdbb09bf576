"""Generated arithmetic word problems with worked reasoning; no network."""

from __future__ import annotations

from pydantic import Field, model_validator

from limbeck.core.artifacts import digest_of
from limbeck.core.parts import config_of, part
from limbeck.core.types import Rows
from limbeck.data.sources._base import Source
from limbeck.data.word_problems import problems

_VERSION = 1
"""Of the generator: raised when the same settings give other problems."""


@part
class Arithmetic(Source):
    """Word problems of several steps: `prompt`, a worked `answer`, and the number of `steps` (the difficulty).

    "A museum has 64 films. It buys 5 more. How many films now?" -> "64+5=69. #### 69". Train, validation and test
    are disjoint by construction: a calculation's digest decides to which one it belongs.
    """

    train_size: int = Field(default=16_000, gt=0)
    """Problems to learn from. Fewer are the beginning of more."""
    validation_size: int = Field(default=500, gt=0)
    """Problems to choose checkpoints on."""
    test_size: int = Field(default=1_000, gt=0)
    """Problems for the final figures."""
    min_steps: int = Field(default=1, ge=1)
    """Fewest operations in a problem."""
    max_steps: int = Field(default=3, ge=1)
    """Most operations in a problem."""
    maximum: int = Field(default=99, ge=2)
    """No number, given or computed, is above it; none is below zero."""
    seed: int = 0
    """Draws numbers and wording; which split a calculation belongs to does not depend on it."""

    @model_validator(mode="after")
    def _steps_in_order(self) -> Arithmetic:
        if self.min_steps > self.max_steps:
            raise ValueError(f"min_steps ({self.min_steps}) is above max_steps ({self.max_steps})")
        return self

    def has(self, split: str) -> bool:
        return split in ("train", "validation", "test")

    def load(self, split: str) -> Rows:
        count = {"train": self.train_size, "validation": self.validation_size, "test": self.test_size}[split]
        steps = {"min_steps": self.min_steps, "max_steps": self.max_steps}
        return Rows(problems(split, count, seed=self.seed, maximum=self.maximum, **steps), f"arithmetic {split}")

    def fingerprint(self) -> str:
        return digest_of({"version": _VERSION, **config_of(self)})
