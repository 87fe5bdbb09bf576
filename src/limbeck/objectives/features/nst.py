"""Neuron selectivity transfer: what each channel responds to, as a distribution over channels.

Shapes: B batch, C channels of the student, E of the teacher, P positions.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from limbeck.core.parts import part
from limbeck.objectives.base import FeatureLoss, FeatureTerm, Pair
from limbeck.objectives.features._common import (
    Compared,
    Told,
    check_lengths,
    check_pairs,
    is_map,
    layers,
    map_shape,
    same_size,
    to_map,
    unit,
)


@part
class NST(FeatureTerm):
    """Neuron selectivity transfer: the student's channels respond to positions as the teacher's do.

    MMD^2 = 1/C^2 sum_cc' k(s_c, s_c') + 1/E^2 sum_ee' k(t_e, t_e') - 2/CE sum_ce k(s_c, t_e) for each picture or text,
    where s_c is channel c over the positions, divided by its length, and k(x, y) = (x . y)^2; averaged over the matched
    layers. Numbers of channels may differ; of maps the larger is averaged to the size of the smaller. A text counts as
    many times as it has positions.

    Reference:
        Huang and Wang, Like What You Like: Knowledge Distill via Neuron Selectivity Transfer, 2017, arXiv:1707.01219.
    """

    def build(self, pairs: Sequence[Pair]) -> FeatureLoss:
        check_pairs(pairs, (3, 4), mixed="maps")
        for pair in filter(is_map, pairs):
            for layer in layers(pair):
                map_shape(layer.shapes[0], pair)
        return _NST(pairs)


class _NST(Compared):
    def compare_pair(self, place: int, student: Sequence[Tensor], teacher: Sequence[Tensor], told: Told) -> Tensor:
        pair, mine, theirs = self.pairs[place], student[0], teacher[0]
        if is_map(pair):
            mine, theirs = same_size(to_map(mine, pair, told), to_map(theirs, pair, told))
            counts_B = told.counts(mine).sum(1)
            mine_BCP, theirs_BEP = unit(mine.flatten(2)), unit(theirs.flatten(2))
        else:
            told.check_same_text()
            check_lengths(mine, theirs, pair)
            counts_B = told.counts(mine).sum(1)
            padding = ~told.real(mine)[..., None]
            mine_BCP, theirs_BEP = (unit(x.masked_fill(padding, 0).transpose(1, 2)) for x in (mine, theirs))
        return (counts_B * discrepancy(mine_BCP, theirs_BEP)).sum()


def discrepancy(mine_BCP: Tensor, theirs_BEP: Tensor) -> Tensor:
    """MMD^2 of two sets of channels under the kernel (x . y)^2, [B].

    The sum of (x . y)^2 over two sets is the inner product of their Gram matrices over positions, so MMD^2 is a squared
    distance of these. Where there are more positions than channels, the kernel itself is the smaller matrix.
    """
    sizes = mine_BCP.shape[1], theirs_BEP.shape[1]
    if mine_BCP.shape[2] <= max(sizes):
        grams = [x.transpose(1, 2) @ x / x.shape[1] for x in (mine_BCP, theirs_BEP)]
        return (grams[0] - grams[1]).square().sum((1, 2))
    one, other, cross = (
        (x @ y.transpose(1, 2)).square().mean((1, 2))
        for x, y in ((mine_BCP, mine_BCP), (theirs_BEP, theirs_BEP), (mine_BCP, theirs_BEP))
    )
    return one + other - 2 * cross
