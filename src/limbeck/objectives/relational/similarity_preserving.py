"""Similarity-preserving distillation: which samples of a batch are like which.

Shapes: B batch, D and E widths of student and teacher.
"""

from __future__ import annotations

from torch import Tensor

from limbeck.core.parts import part
from limbeck.objectives.features._common import unit
from limbeck.objectives.relational._common import Relational


@part
class SimilarityPreserving(Relational):
    """Which samples of a micro-batch are like which.

    1/B^2 ||G_s - G_t||_F^2 with G = X X^T, every row divided by its Euclidean length. The paper flattens maps: `pool:
    none`.

    Reference:
        Tung and Mori, Similarity-Preserving Knowledge Distillation, 2019, arXiv:1907.09682.
    """

    def relate(self, mine_BD: Tensor, theirs_BE: Tensor, weights_B: Tensor) -> Tensor:
        mine_BB, theirs_BB = (unit(rows @ rows.T) for rows in (mine_BD, theirs_BE))
        return (weights_B[:, None] * (mine_BB - theirs_BB).square()).sum() / len(mine_BD) ** 2
