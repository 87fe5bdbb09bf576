"""Probabilistic knowledge transfer: how likely a sample is to be another one's neighbour.

Shapes: B batch, D and E widths of student and teacher.
"""

from __future__ import annotations

import torch
from torch import Tensor

from limbeck.core.parts import part
from limbeck.objectives.features._common import unit
from limbeck.objectives.relational._common import Relational


@part
class PKT(Relational):
    """Which samples are neighbours of which, as probabilities (probabilistic knowledge transfer).

    1/B sum_i KL(p_t(.|i) || p_s(.|i)) with p(j|i) = K(i,j) / sum_{k != i} K(i,k) over the other samples of a
    micro-batch and K(i,j) = (1 + cos(x_i, x_j)) / 2.

    Reference:
        Passalis and Tefas, Learning Deep Representations with Probabilistic Knowledge Transfer, 2018, arXiv:1803.10837.
    """

    def relate(self, mine_BD: Tensor, theirs_BE: Tensor, weights_B: Tensor) -> Tensor:
        mine_BB, theirs_BB = _log_neighbours(mine_BD), _log_neighbours(theirs_BE)
        own_BB = torch.eye(len(mine_BD), dtype=torch.bool, device=mine_BD.device)
        difference_BB = (theirs_BB - mine_BB).masked_fill(own_BB, 0)
        return (weights_B[:, None] * theirs_BB.exp() * difference_BB).sum() / len(mine_BD)


def _log_neighbours(rows_BD: Tensor) -> Tensor:
    """log p(j|i), [B, B]; its diagonal is meaningless, and finite."""
    unit_BD = unit(rows_BD)
    # Opposite samples have kernel 0 but for rounding.
    kernel_BB = ((1 + unit_BD @ unit_BD.T) / 2).clamp(min=torch.finfo(rows_BD.dtype).eps)
    own_BB = torch.eye(len(rows_BD), dtype=torch.bool, device=rows_BD.device)
    return kernel_BB.log() - kernel_BB.masked_fill(own_BB, 0).sum(1, keepdim=True).log()
