"""Relational knowledge distillation: distances and angles between samples.

Shapes: B batch, D and E widths of student and teacher.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import smooth_l1_loss

from limbeck.core.parts import part
from limbeck.objectives.relational._common import Relational


@part
class RKD(Relational):
    """Distances and angles between samples (relational knowledge distillation).

    distance * mean_ij h(d_s(i,j), d_t(i,j)) + angle * mean_ijk h(a_s(i,j,k), a_t(i,j,k)) over different samples of a
    micro-batch. d(i,j) = ||x_i - x_j|| / mean_kl ||x_k - x_l||, a(i,j,k) is the cosine of the angle at j, sum_d e_d f_d
    of the unit vectors from j to i and to k, and h is the Huber loss. Samples with the same row have distance 0 and
    angle 0.

    Reference:
        Park et al., Relational Knowledge Distillation, 2019, arXiv:1904.05068.
    """

    distance: float = Field(default=1.0, ge=0)
    """Share of the distances."""
    angle: float = Field(default=2.0, ge=0)
    """Share of the angles; the paper weighs them twice as much as distances. Their memory grows with B^3."""

    @property
    def least(self) -> int:
        return 3 if self.angle else 2  # an angle has three corners

    def relate(self, mine_BD: Tensor, theirs_BE: Tensor, weights_B: Tensor) -> Tensor:
        mine_BB, mine_BBD = _vectors(mine_BD)
        theirs_BB, theirs_BBE = _vectors(theirs_BE)
        other_BB = ~torch.eye(len(mine_BD), dtype=torch.bool, device=mine_BD.device)
        value = mine_BD[:0].sum()
        if self.distance:
            errors_BB = smooth_l1_loss(_normalised(mine_BB), _normalised(theirs_BB), reduction="none")
            root_B = weights_B.sqrt()
            value = value + self.distance * _mean(errors_BB * root_B[:, None] * root_B, other_BB)
        if self.angle:
            # The corner j leads.
            mine_BBB, theirs_BBB = (x @ x.transpose(1, 2) for x in (mine_BBD, theirs_BBE))
            different_BBB = other_BB[:, :, None] & other_BB[:, None, :] & other_BB
            root_B = weights_B.pow(1 / 3)
            errors_BBB = smooth_l1_loss(mine_BBB, theirs_BBB, reduction="none")
            errors_BBB = errors_BBB * root_B[:, None, None] * root_B[:, None] * root_B
            value = value + self.angle * _mean(errors_BBB, different_BBB)
        return value


def _vectors(rows_BD: Tensor) -> tuple[Tensor, Tensor]:
    """Distances [B, B], and unit vectors [B, B, D] from the first index to the second; zero for equal rows."""
    difference_BBD = rows_BD[None] - rows_BD[:, None]
    squares_BB = difference_BBD.square().sum(-1)
    apart_BB = squares_BB > 0
    length_BB = torch.where(apart_BB, squares_BB, 1).sqrt()  # the root has no gradient at 0
    return length_BB * apart_BB, difference_BBD / length_BB[..., None]


def _normalised(distance_BB: Tensor) -> Tensor:
    """Divided by their mean over different samples; zeros where all are equal."""
    count = len(distance_BB)
    mean = distance_BB.sum() / (count * (count - 1))
    return distance_BB / torch.where(mean > 0, mean, 1)


def _mean(values: Tensor, which: Tensor) -> Tensor:
    return (values * which).sum() / which.sum()
