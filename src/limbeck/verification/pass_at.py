"""How likely it is that one of k answers is right."""

from __future__ import annotations

from collections.abc import Collection
from math import prod
from typing import TYPE_CHECKING

from limbeck.core.errors import RecipeError

if TYPE_CHECKING:
    from limbeck.verification.select import Facts


def tries(samples: int) -> list[int]:
    """The k that pass@k is told for: 1, 2, 4, ... and the number of samples itself."""
    return [*(2**i for i in range((samples - 1).bit_length())), samples]


def pass_at(k: int, facts: Collection[Facts]) -> float | None:
    """pass@k, without bias: the mean over prompts of 1 - C(n - c, k) / C(n, k), of n answers c of them right.

    That is the share of the draws of k from the n answers that hold a right one. 1 - (1 - c/n)^k would be too small.

    Args:
        k: how many answers may be tried.
        facts: what is known of each prompt; those with fewer than k answers tell nothing and are left out.

    Returns:
        The estimate; None where no prompt has k answers.

    Raises:
        RecipeError: k is not positive.

    Reference:
        Chen et al., Evaluating Large Language Models Trained on Code, 2021, arXiv:2107.03374.
    """
    if k < 1:
        raise RecipeError("pass@k needs at least one answer", got=k)
    # The product form of the quotient: no large factorials, and exactly 0 where fewer than k answers are wrong.
    missed = [
        prod(max(0, n - c - i) / (n - i) for i in range(k))
        for n, c in ((f.answers, f.right) for f in facts if f.answers >= k)
    ]
    return 1 - sum(missed) / len(missed) if missed else None
