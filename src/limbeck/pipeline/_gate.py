"""The gate before a compressed student: how far it may be from the student as it was trained.

Shapes: N rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from limbeck.compression import Compressor
from limbeck.compression._sensitivity import Hurt
from limbeck.core.errors import BudgetError
from limbeck.core.recipe.compress import Tolerance
from limbeck.evaluation.paired import drop_bound, rise_bound

SHOWN = 5
"""Layers that a refusal names."""


@dataclass(frozen=True)
class Verdict:
    """What the gate found.

    Attributes:
        passed: whether the compressed student is let through.
        drop: accuracy before minus accuracy after, below zero where it rose; or by which share perplexity rose.
        upper: the one-sided upper bound of this.
        agreement: share of rows with the same answer; without graded answers, of tokens.
        n: rows that were compared.
        crossed: the limits that it does not keep, in words.
        score: what `drop` and `upper` are about.
    """

    passed: bool
    drop: float
    upper: float
    agreement: float
    n: int
    crossed: tuple[str, ...]
    score: Literal["accuracy", "perplexity"] = "accuracy"


def refuse_too_few(tolerance: Tolerance, n: int) -> None:
    """Refuse a bound that no student could keep: with so few rows it is above the limit if no answer changes.

    Raises:
        BudgetError: it could not.
    """
    same = np.ones(n, dtype=bool)
    least = drop_bound(same, same, tolerance.confidence)
    if tolerance.bound is not None and least > tolerance.bound:
        raise BudgetError(
            f"{n} validation rows are too few for the gate: if the answer to none of them changes, the bound is "
            f"{least:.4f}",
            allowed=f"compress.tolerance.bound {tolerance.bound:g}",
            fix="more validation rows, or a wider bound",
        )


def judge(tolerance: Tolerance, right: NDArray[np.bool_], still: NDArray[np.bool_], same: NDArray[np.bool_]) -> Verdict:
    """Hold answers after against answers before.

    Args:
        tolerance: the limits.
        right: whether the trained student is right, [N].
        still: whether the compressed one is, [N].
        same: whether they say the same, [N].
    """
    drop, upper = float(right.mean() - still.mean()), drop_bound(right, still, tolerance.confidence)
    agreement = float(same.mean())
    crossed = _crossed(tolerance, (drop, upper, agreement), ("accuracy falls", "the fall", "rows"))
    return Verdict(not crossed, drop, upper, agreement, len(right), crossed)


def judge_likelihood(
    tolerance: Tolerance,
    before: NDArray[np.float64],
    after: NDArray[np.float64],
    tokens: NDArray[np.int64],
    same: float,
) -> Verdict:
    """Hold the perplexity of texts after against that before.

    Args:
        tolerance: the limits; `drop` and `bound` are of perplexity, as a share.
        before: the texts' negative log-likelihoods, [N].
        after: those of the compressed student, [N].
        tokens: how many each text has, [N].
        same: share of tokens where both find the same one likeliest.
    """
    rise = float(np.exp((after.sum() - before.sum()) / tokens.sum()) - 1)
    upper = float(np.exp(rise_bound(before, after, tokens, tolerance.confidence)) - 1)
    crossed = _crossed(tolerance, (rise, upper, same), ("perplexity rises", "the rise", "tokens"))
    return Verdict(not crossed, rise, upper, same, len(before), crossed, "perplexity")


def _crossed(tolerance: Tolerance, found: tuple[float, float, float], words: tuple[str, str, str]) -> tuple[str, ...]:
    (drop, upper, agreement), (falls, the_fall, rows) = found, words
    crossed = []
    if tolerance.drop is not None and not drop <= tolerance.drop:
        crossed.append(f"{falls} by {drop:.4f}, allowed {tolerance.drop:g}")
    if tolerance.bound is not None and not upper <= tolerance.bound:
        crossed.append(f"{the_fall} may be {upper:.4f} ({tolerance.confidence:.0%} bound), allowed {tolerance.bound:g}")
    if tolerance.agreement is not None and agreement < tolerance.agreement:
        crossed.append(f"the answer is the same on {agreement:.4f} of the {rows}, asked for {tolerance.agreement:g}")
    return tuple(crossed)


def refusal(part: Compressor, verdict: Verdict, hurt: Sequence[Hurt]) -> BudgetError:
    """What is told of a student that lost too much: how much, and by which layers."""
    return BudgetError(
        f"the student compressed by {part.type()} is beyond the gate, on {verdict.n} validation rows",
        got="; ".join(verdict.crossed),
        allowed=f"layers that suffer most: {', '.join(_told(each) for each in hurt[:SHOWN])}",
        fix=f"leave some out: compress.keep=[{', '.join(each.layer for each in hurt[:2])}]; or widen the tolerance",
    )


def _told(hurt: Hurt) -> str:
    return f"{hurt.layer} (KL {hurt.kl:.2g}, {hurt.changed:.1%} of the answers)"
