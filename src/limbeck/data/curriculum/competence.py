"""Difficulty that grows with the student's competence."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from limbeck.core.parts import part
from limbeck.data.curriculum._base import Curriculum


@part
class Competence(Curriculum):
    """Draw from the easiest rows, of which there are more and more.

    At progress t samples come from the easiest c(t) of the rows, all of them alike:

        root:   c(t) = min(1, sqrt(t (1 - c0^2) / T + c0^2))
        linear: c(t) = min(1, t (1 - c0) / T + c0)

    `root` takes in new rows ever more slowly, so that each new one has as much time as the earlier ones.

    Reference:
        Platanios et al., Competence-based Curriculum Learning for Neural Machine Translation, 2019, arXiv:1903.09848.
    """

    shape: Literal["root", "linear"] = "root"
    """How competence grows."""
    initial: float = Field(default=0.01, gt=0, le=1)
    """c0: the share of the rows to begin with; there are always enough for one step."""
    until: float = Field(default=0.5, gt=0, le=1)
    """T: the share of the stage after which all rows are drawn from."""

    def span(self, progress: float) -> tuple[float, float]:
        power = 2 if self.shape == "root" else 1
        grown = progress * (1 - self.initial**power) / self.until + self.initial**power
        return 0.0, min(1.0, grown ** (1 / power))
