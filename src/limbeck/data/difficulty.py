"""How difficult a sample is: by its steps, its length, how often the teacher fails on it, or the student's loss.

Measures have different scales, so each becomes a rank in [0, 1] over all rows (equal values share their mean rank);
a mix is the weighted mean of ranks, ranked again.

Shapes: N rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from limbeck.core.errors import RecipeError
from limbeck.core.types import Sample
from limbeck.data.steps import joined, steps_of

PASS_RATE = "pass_rate"
"""The column with the share of the teacher's answers that were right; what it never solves is the most difficult."""
STUDENT_LOSS = "student_loss"
"""The loss on each row of the student that a stage begins with; a large loss is difficult."""


def ranks(values: Sequence[float] | np.ndarray) -> np.ndarray:
    """The rank of each value, 0 the least and 1 the greatest, [N]; equal values share the mean of their ranks."""
    _, inverse_N, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    means = np.cumsum(counts) - (counts + 1) / 2
    result: np.ndarray = means[inverse_N] / max(1, len(inverse_N) - 1)
    return result


def asks_student(samples: Sequence[Sample], measures: Mapping[str, float]) -> bool:
    """Whether the student's loss counts and no row has it as a column."""
    return STUDENT_LOSS in measures and not any(STUDENT_LOSS in sample.meta for sample in samples)


def difficulty(
    samples: Sequence[Sample],
    measures: Mapping[str, float],
    lengths: Sequence[int] | np.ndarray | None = None,
    losses: Sequence[float] | None = None,
) -> np.ndarray:
    """Ranks of difficulty, 0 the easiest and 1 the most difficult, [N].

    A measure is a column of the rows with numbers (`pass_rate` counts the other way round), or else what can be seen
    of the row itself: `steps`, the steps of the worked answer, and `length`; or `student_loss`.

    Args:
        samples: all rows.
        measures: by name, how much each counts. Below zero: large values are easy.
        lengths: the length of each, in tokens; left out: of input and answer in characters.
        losses: the student's loss on each; left out: no student is there to ask.

    Raises:
        RecipeError: a measure is missing in some rows, is no number, or tells no row from another.
    """
    mixed_N = np.zeros(len(samples))
    for name, weight in measures.items():
        values_N = _measured(name, samples, lengths, losses)
        if len(samples) > 1 and values_N.min() == values_N.max():
            fix = "choose another measure of difficulty"
            raise RecipeError(
                f"all rows are equally difficult by `{name}`", got=f"{values_N[0]:g} in every row", fix=fix
            )
        mixed_N += weight * ranks(values_N)
    # Sums that differ in their last bits alone are equal.
    return ranks(np.round(mixed_N, 9))


def steps_in(sample: Sample) -> int:
    """Steps of the worked answer that come to a conclusion; the rest joins them."""
    return len(joined(steps_of(sample.target))) if isinstance(sample.target, str) else 0


def _measured(
    name: str,
    samples: Sequence[Sample],
    lengths: Sequence[int] | np.ndarray | None,
    losses: Sequence[float] | None,
) -> np.ndarray:
    having = sum(name in sample.meta for sample in samples)
    if having and having < len(samples):
        first = next(sample.id for sample in samples if name not in sample.meta)
        what = f"`{name}` is to tell how difficult rows are, but {len(samples) - having} rows have none"
        raise RecipeError(what, got=f"nothing in row {first}", fix=f"give every row a number in `{name}`")
    if having:
        values_N = np.array([_number(name, sample) for sample in samples])
        return -values_N if name == PASS_RATE else values_N
    if name == "steps":
        return np.array([steps_in(sample) for sample in samples], dtype=float)
    if name == "length":
        return np.array(
            [_characters(s.inputs) + _characters(s.target) for s in samples] if lengths is None else lengths
        )
    if name == STUDENT_LOSS and losses is not None:
        return np.asarray(losses)
    columns = sorted({key for sample in samples[:1] for key in sample.meta})
    seen = ["steps", "length", *([] if losses is None else [STUDENT_LOSS])]
    allowed = ", ".join(dict.fromkeys([*seen, *columns]))
    raise RecipeError(f"rows have no `{name}` that could tell how difficult they are", got=name, allowed=allowed)


def _number(name: str, sample: Sample) -> float:
    value = sample.meta[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        what = f"`{name}` is to tell how difficult rows are, but is no number in row {sample.id}"
        raise RecipeError(what, got=repr(value))
    if name == PASS_RATE and not 0 <= value <= 1:
        raise RecipeError(f"`{name}` of row {sample.id} is no share", got=value, allowed="0 to 1")
    return float(value)


def _characters(value: Any) -> int:
    """Characters of all texts in a value."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return sum(map(_characters, value.values()))
    return sum(map(_characters, value)) if isinstance(value, list | tuple) else 0
