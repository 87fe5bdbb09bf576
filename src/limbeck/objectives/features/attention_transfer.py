"""Attention transfer: where in a picture a layer is active.

Shapes: B batch, C channels, H height, W width, P = H x W.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field
from torch import Tensor

from limbeck.core.parts import part
from limbeck.objectives.base import FeatureLoss, FeatureTerm, Pair
from limbeck.objectives.features._common import Compared, Told, check_pairs, layers, map_shape, same_size, to_map, unit


@part
class AttentionTransfer(FeatureTerm):
    """Where a layer is active, for pictures: activations summed over channels and normalised.

    ||Q_s / ||Q_s|| - Q_t / ||Q_t|| ||^2 for each picture, with Q = sum_c |a_c|^p as a vector over the places of the
    map, averaged over the matched layers. Numbers of channels may differ, and the larger map of activations is averaged
    to the size of the smaller. The square, in place of the paper's plain norm, has a gradient where the two are equal.

    Reference:
        Zagoruyko and Komodakis, Paying More Attention to Attention, 2016, arXiv:1612.03928.
    """

    power: float = Field(default=2.0, ge=1)
    """p: how much strong activations count above weak ones."""

    def build(self, pairs: Sequence[Pair]) -> FeatureLoss:
        check_pairs(pairs, (3, 4), mixed="any")
        for pair in pairs:
            for layer in layers(pair):
                map_shape(layer.shapes[0], pair)
        return _AttentionTransfer(self, pairs)


class _AttentionTransfer(Compared):
    def __init__(self, term: AttentionTransfer, pairs: Sequence[Pair]):
        super().__init__(pairs)
        self.power = term.power

    def compare_pair(self, place: int, student: Sequence[Tensor], teacher: Sequence[Tensor], told: Told) -> Tensor:
        pair = self.pairs[place]
        maps = (self._activity(to_map(x[0], pair, told)) for x in (student, teacher))
        mine_BP, theirs_BP = (unit(x.flatten(1)) for x in same_size(*maps))
        counts_B = told.counts(mine_BP).squeeze(1)
        return (counts_B * (mine_BP - theirs_BP).square().sum(1)).sum()

    def _activity(self, map_BCHW: Tensor) -> Tensor:
        """[B, 1, H, W], of any scale: it is normalised afterwards."""
        if not len(map_BCHW):
            return map_BCHW.sum(1, keepdim=True)
        peak_B111 = map_BCHW.detach().abs().amax((1, 2, 3), keepdim=True)
        scaled = map_BCHW / peak_B111.masked_fill(peak_B111 == 0, 1)
        return scaled.abs().pow(self.power).sum(1, keepdim=True)
