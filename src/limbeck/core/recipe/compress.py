"""How much a compressed student may lose."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from limbeck.core.recipe.section import Section

Share = Annotated[float, Field(ge=0, le=1)]


class Tolerance(Section):
    """What a compressed student is held to, on the validation rows, against the student as it was trained.

    Left out, the figures are taken down all the same. All are shares: 0.01 is one point of accuracy. Of a language
    model whose answers are not graded, `drop` and `bound` are of perplexity: 0.01 is from 10 to 10.1.
    """

    drop: Share | None = 0.01
    """The most that accuracy may fall."""
    bound: Share | None = None
    """The most that the upper bound of the fall may be. With few rows it is far above the fall: with none of 200 rows
    changed, 0.013."""
    agreement: Share | None = None
    """The least share of rows with the same answer as before; of answers that are not graded, of their tokens."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Of the bound, which is one-sided."""
    max_samples: Annotated[int, Field(gt=0)] | None = None
    """Validation rows that are compared, drawn by the data's seed. Left out: all."""
