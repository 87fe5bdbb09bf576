"""Parts of the training rows with shares of every step: how many samples of a step come from which part.

Systematic sampling: B equally spaced points on a line that the parts share by their weights, so that each step has
the exact number or one of the two whole numbers beside it. The points' offset moves on by the golden ratio from step
to step, the sequence with the least discrepancy: over a stage the shares are met to a few samples.

Shapes: S steps, P parts, N rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from limbeck.core.errors import RecipeError
from limbeck.core.schedules import Schedule
from limbeck.core.types import Sample

_GOLDEN = (5**0.5 - 1) / 2


def shares(weights: Mapping[str, Schedule], steps: int) -> np.ndarray:
    """Each part's share of each step, [S, P]; a step's shares add up to 1.

    Args:
        weights: by part, its weight over the stage's progress.
        steps: steps of the stage.

    Raises:
        RecipeError: a weight is negative, or all are zero at some step.
    """
    progress = np.arange(steps) / max(1, steps - 1)
    weights_SP = np.array([[weight(float(p)) for weight in weights.values()] for p in progress])
    if (weights_SP < 0).any():
        step, part = np.argwhere(weights_SP < 0)[0]
        got = f"{list(weights)[part]}: {weights_SP[step, part]:g} at step {step + 1}"
        raise RecipeError("a weight of the mixture is negative", got=got, allowed="0 or more, all along")
    totals = weights_SP.sum(1, keepdims=True)
    if not totals.all():
        raise RecipeError("all weights of the mixture are zero", got=f"at step {int(np.argmin(totals)) + 1}")
    return weights_SP / totals


def draws(shares_SP: np.ndarray, batch_size: int, seed: Sequence[int]) -> np.ndarray:
    """How many samples each step takes from each part, [S, P]; every row adds up to the batch size.

    With shares w and batch size B a part has floor(B w) or ceil(B w) samples of a step, B w in the mean.

    Args:
        shares_SP: each part's share of each step.
        batch_size: samples in one step.
        seed: draws the first step's offset; one or more numbers.

    Reference:
        Madow and Madow, On the Theory of Systematic Sampling, The Annals of Mathematical Statistics 15, 1944.
    """
    offsets_S1 = (np.random.default_rng([*seed, 4]).random() + _GOLDEN * np.arange(len(shares_SP))[:, None]) % 1
    edges_SP = np.cumsum(shares_SP, axis=1) * batch_size
    edges_SP[:, -1] = batch_size
    # Without the rounding, a weight's last bit could move a point over an edge that it lies on.
    below_SP = np.ceil(np.round(edges_SP - offsets_S1, 9)).astype(np.int64).clip(0, batch_size)
    return np.diff(below_SP, axis=1, prepend=0)


def parts_of(samples: Sequence[Sample], by: str, weights: Mapping[str, Schedule]) -> list[np.ndarray]:
    """The places of each part's rows, in the order of the weights.

    Args:
        samples: all training rows.
        by: the column that says to which part a row belongs.
        weights: the parts of the mixture.

    Raises:
        RecipeError: a row has no such column or is of a part that has no weight, or a part has no rows.
    """
    number = {name: i for i, name in enumerate(weights)}
    codes_N = np.empty(len(samples), dtype=np.int32)
    for i, sample in enumerate(samples):
        name = sample.meta.get(by)
        if name is None:
            fix = "give every row one, or name another column: mixture: {by: COLUMN, weights: {...}}"
            raise RecipeError(f"the mixture goes by `{by}`, but row {sample.id} has no such column", fix=fix)
        if str(name) not in number:
            fix = f"give {name} a weight; 0 leaves its rows out"
            raise RecipeError(f"row {sample.id} is of a part without a weight", got=name, allowed=list(number), fix=fix)
        codes_N[i] = number[str(name)]
    found = [np.flatnonzero(codes_N == i) for i in range(len(weights))]
    if empty := [name for name, places in zip(weights, found, strict=True) if not len(places)]:
        raise RecipeError(f"parts of the mixture have no rows: {', '.join(empty)}", fix="remove them from the mixture")
    return found
