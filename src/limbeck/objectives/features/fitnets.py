"""FitNets: a regressor on the student's layer predicts the teacher's.

Shapes: B batch, P positions, C channels of the student, E of the teacher, H height, W width, N positions that count.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from limbeck.alignment.projectors import ConvProjector, LinearProjector
from limbeck.core.errors import RecipeError
from limbeck.core.parts import part
from limbeck.objectives.base import FeatureLoss, FeatureTerm, Pair
from limbeck.objectives.features._common import (
    Compared,
    Told,
    check_pairs,
    is_map,
    layers,
    map_shape,
    places,
    rows_of,
    to_map,
    width,
)


@part
class Fitnets(FeatureTerm):
    """FitNets hints: a trained regressor r of the student's layer predicts the teacher's.

    sum_p 1/2 ||r(s)_p - t_p||^2 / E over the real positions p, averaged over the matched layers. The division by the
    teacher's width E is not in the paper; it makes the weight mean the same for all widths. On maps r is a convolution
    whose kernel brings the student's size to the teacher's, as in the paper: H_s - H_t + 1 high, without padding. Where
    the student's map is smaller, the kernel is 1 and the teacher's map is averaged to its size.

    Reference:
        Romero et al., FitNets: Hints for Thin Deep Nets, 2014, arXiv:1412.6550.
    """

    regressor: Literal["auto", "linear", "conv"] = "auto"
    """`linear` for sequences, `conv` for maps; `auto` takes what fits."""

    def build(self, pairs: Sequence[Pair]) -> FeatureLoss:
        check_pairs(pairs, (2, 3, 4), mixed="maps")
        return _Fitnets(self, pairs)


class _Fitnets(Compared):
    def __init__(self, term: Fitnets, pairs: Sequence[Pair]):
        super().__init__(pairs)
        self.projectors.extend(_regressor(term.regressor, pair) for pair in pairs)

    def compare_pair(self, place: int, student: Sequence[Tensor], teacher: Sequence[Tensor], told: Told) -> Tensor:
        pair, regress = self.pairs[place], self.projectors[place]
        mine, theirs = student[0], teacher[0]
        if is_map(pair):  # the kernel does what averaging does elsewhere
            mine, regress = regress(to_map(mine, pair, told)), nn.Identity()
        mine_NE, theirs_NE, counts_N = rows_of(mine, theirs, regress, pair, told)
        return (counts_N * (mine_NE - theirs_NE).square().mean(-1) / 2).sum()


def _regressor(kind: str, pair: Pair) -> nn.Module:
    fitting = "conv" if is_map(pair) else "linear"
    if kind not in ("auto", fitting):
        fix = f"regressor: {fitting}"
        raise RecipeError(f"a regressor '{kind}' does not fit these layers", got=places(pair), fix=fix)
    if not is_map(pair):
        one, other = layers(pair)
        return LinearProjector(width(one), width(other))
    mine, theirs = (map_shape(layer.shapes[0], pair) for layer in layers(pair))
    kernel = (max(0, mine[1] - theirs[1]) + 1, max(0, mine[2] - theirs[2]) + 1)
    return ConvProjector(mine[0], theirs[0], kernel)
