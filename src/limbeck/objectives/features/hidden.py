"""Hidden states: each position of a student's layer becomes like the teacher's.

Shapes: B batch, T positions, P positions of any layer, D and E widths of student and teacher, N positions that count.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from torch import Tensor, nn
from torch.nn.functional import layer_norm

from limbeck.alignment.projectors import ProjectorKind, make_projector
from limbeck.core.parts import part
from limbeck.objectives.base import FeatureLoss, FeatureTerm, Pair
from limbeck.objectives.features._common import (
    Compared,
    Told,
    check_pairs,
    cosine_distance,
    is_map,
    layers,
    map_shape,
    places,
    rows_of,
    width,
)

Distance = Literal["layer_norm", "mse", "cosine"]


@part
class Hidden(FeatureTerm):
    """Hidden states, position by position: mean of ||LN(W s) - LN(t)||^2 / E.

    sum_p ||LN(W s_p) - LN(t_p)||^2 / E over the real positions p, averaged over the matched layers; LN takes mean and
    variance out of a row, W is the projector. `mse` leaves LN out, `cosine` is 1 - cos(W s_p, t_p). Sequences
    [B, T, D] must have equal lengths, maps [B, C, H, W] are averaged to the smaller size, and a map may stand beside
    the patches of a picture.

    Reference:
        Jiao et al., TinyBERT: Distilling BERT for Natural Language Understanding, 2019, arXiv:1909.10351.
    """

    packs: ClassVar[bool] = True

    distance: Distance = "layer_norm"
    """What is compared: normalised rows, plain rows (`mse`), or directions (`cosine`)."""
    projector: ProjectorKind = "auto"
    """What maps the student's width to the teacher's: `linear` for sequences, `conv` (1x1) for maps, or none."""

    def build(self, pairs: Sequence[Pair]) -> FeatureLoss:
        check_pairs(pairs, (2, 3, 4), mixed="maps")
        return _Hidden(self, pairs)


class _Hidden(Compared):
    def __init__(self, term: Hidden, pairs: Sequence[Pair]):
        super().__init__(pairs)
        self.distance = term.distance
        self.projectors.extend(projector_for(term.projector, pair) for pair in pairs)

    def compare_pair(self, place: int, student: Sequence[Tensor], teacher: Sequence[Tensor], told: Told) -> Tensor:
        rows = rows_of(student[0], teacher[0], self.projectors[place], self.pairs[place], told)
        mine_NE, theirs_NE, counts_N = rows
        return (counts_N * row_distance(mine_NE, theirs_NE, self.distance)).sum()


def projector_for(kind: ProjectorKind, pair: Pair) -> nn.Module:
    """The projector between a pair of layers, after a look at whether they can be compared at all."""
    if is_map(pair):
        for layer in layers(pair):
            map_shape(layer.shapes[0], pair)
    mine, theirs = (width(layer) for layer in layers(pair))
    return make_projector(kind, mine, theirs, is_map=is_map(pair), where=places(pair))


def row_distance(mine_NE: Tensor, theirs_NE: Tensor, distance: Distance) -> Tensor:
    """The distance of each row, [N]."""
    if distance == "cosine":
        return cosine_distance(mine_NE, theirs_NE)
    if distance == "layer_norm":
        size = mine_NE.shape[-1:]
        mine_NE, theirs_NE = layer_norm(mine_NE, size), layer_norm(theirs_NE, size)
    return (mine_NE - theirs_NE).square().mean(-1)
