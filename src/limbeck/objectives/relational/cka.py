"""CKA as a loss: two models see the samples of a batch alike.

Shapes: B batch, D and E widths of student and teacher.
"""

from __future__ import annotations

from torch import Tensor

from limbeck.alignment.cka import LEAST, linear_cka
from limbeck.core.parts import part
from limbeck.objectives.relational._common import Relational


@part
class CKA(Relational):
    """1 - CKA: the geometry of a micro-batch as a whole, whatever the widths.

    1 - sum_ij A_ij B_ij / (||A||_F ||B||_F) with A and B the U-centred Gram matrices X X^T of student and teacher:
    linear CKA with the unbiased HSIC_1, which is about 0 for independent features, where the biased form is not. Needs
    micro-batches of at least 4 samples, better 16 and more.

    Reference:
        Kornblith et al., Similarity of Neural Network Representations Revisited, 2019, arXiv:1905.00414; the unbiased
        form on batches: Nguyen et al., Do Wide and Deep Networks Learn the Same Things?, 2020, arXiv:2010.15327.
    """

    @property
    def least(self) -> int:
        return LEAST

    def relate(self, mine_BD: Tensor, theirs_BE: Tensor, weights_B: Tensor) -> Tensor:
        return (1 - linear_cka(mine_BD, theirs_BE)) * weights_B.mean()
