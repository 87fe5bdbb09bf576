"""Multilevel: tokens, layers and the batch as a whole, in one term whose weights adapt.

Shapes: B batch, E width of the teacher, N positions that count, M and K matches, L levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from limbeck.alignment.cka import LEAST, linear_cka
from limbeck.alignment.projectors import ProjectorKind
from limbeck.core.errors import RecipeError
from limbeck.core.parts import part
from limbeck.objectives.base import FeatureLoss, FeatureTerm, Pair
from limbeck.objectives.features._common import (
    Compared,
    Told,
    check_pairs,
    cosine_distance,
    is_map,
    layers,
    places,
    rows_of,
    to_map,
    width,
)
from limbeck.objectives.features.hidden import projector_for, row_distance
from limbeck.objectives.relational._common import pooled

Level = Literal["token", "layer", "global"]


def _all_levels() -> dict[Level, float]:
    return {"token": 1.0, "layer": 1.0, "global": 1.0}


@part
class Multilevel(FeatureTerm):
    """Tokens, layers and the batch as a whole at once, with weights that adapt.

    sum_l lambda_l sum_m w_m v_lm over levels l and matches m, for each position of the batch. With r = LN(W s):
    `token` is the mean over real positions of ||r - LN(t)||^2 / E; `layer` the same of each sample's mean row, as
    sum_k a_mk d(s_m, t_k) over the teacher's layers; `global` is 1 - CKA (unbiased) of the samples' mean rows.

    `layer_map: matched` takes a sample's own match alone; `attention` learns a_m = softmax over all matched teacher's
    layers k of the product of the mean rows over sqrt(E), for each sample. `weighting: fixed` has w_m = 1/M;
    `dissimilarity` w = softmax over the matches of (1 - cos(W s, t)) / temperature without gradient, so layers that
    are far behind count more; `uncertainty` 1/M sum_m (exp(-u_lm) v_lm + u_lm) / 2 with learned log-variances u, which
    may be negative.

    Reference:
        Passban et al., ALP-KD: Attention-Based Layer Projection for Knowledge Distillation, 2020, arXiv:2012.14022;
        Kendall et al., Multi-Task Learning Using Uncertainty to Weigh Losses, 2017, arXiv:1705.07115; Kornblith et al.,
        Similarity of Neural Network Representations Revisited, 2019, arXiv:1905.00414.
    """

    levels: dict[Level, float] = Field(default_factory=_all_levels)
    """lambda: the share of each level, `token`, `layer` and `global`; one that is left out is not compared."""
    weighting: Literal["dissimilarity", "uncertainty", "fixed"] = "dissimilarity"
    """How the matches are weighed against each other."""
    layer_map: Literal["matched", "attention"] = "matched"
    """Which of the teacher's layers a student's layer learns from at the level `layer`."""
    temperature: float = Field(default=1.0, gt=0)
    """Of the softmax of `dissimilarity`: a low one looks at the worst match alone."""
    projector: ProjectorKind = "auto"
    """What maps the student's width to the teacher's: `linear` for sequences, `conv` (1x1) for maps, or none."""

    adds_up: ClassVar[bool] = False

    @model_validator(mode="after")
    def _some_level(self) -> Multilevel:
        if not any(self.levels.values()) or any(share < 0 for share in self.levels.values()):
            raise ValueError("levels need shares of at least 0, one of them above it")
        return self

    def build(self, pairs: Sequence[Pair]) -> FeatureLoss:
        check_pairs(pairs, (2, 3, 4), mixed="maps")
        if self.layer_map == "attention":
            for pair in pairs:
                if width(layers(pair)[1]) != width(layers(pairs[0])[1]):
                    raise RecipeError(
                        "attention over the teacher's layers needs them to have one width",
                        got=f"{places(pairs[0])}; {places(pair)}",
                        fix="layer_map: matched",
                    )
        return _Multilevel(self, pairs)


@dataclass(frozen=True)
class _Match:
    """A pair of layers as the levels see it.

    Attributes:
        mine_NE, theirs_NE, counts_N: projected rows of the student, the teacher's rows, and what each counts.
        means_BE, means_BD, their_means_BE: mean row of each sample: projected, the student's own, the teacher's.
        counts_B: what each sample counts.
    """

    mine_NE: Tensor
    theirs_NE: Tensor
    counts_N: Tensor
    means_BE: Tensor
    means_BD: Tensor
    their_means_BE: Tensor
    counts_B: Tensor


class _Multilevel(Compared):
    def __init__(self, term: Multilevel, pairs: Sequence[Pair]):
        super().__init__(pairs)
        self.term = term
        self.levels = {level: share for level, share in term.levels.items() if share}
        self.projectors.extend(projector_for(term.projector, pair) for pair in pairs)
        self.log_variances: nn.Parameter | None = None
        if term.weighting == "uncertainty":  # a vector, because optimizers let matrices decay
            self.log_variances = nn.Parameter(torch.zeros(len(self.levels) * len(pairs)))

    def compare(self, student: Sequence[Sequence[Tensor]], teacher: Sequence[Sequence[Tensor]], told: Told) -> Tensor:
        if "global" in self.levels:
            told.check_enough(LEAST, self.training)
        matches = [self._match(i, s[0], t[0], told) for i, (s, t) in enumerate(zip(student, teacher, strict=True))]
        compare = {"token": _tokens, "layer": self._means, "global": _batch}
        values_LM = torch.stack([torch.stack(compare[level](matches)) for level in self.levels])
        shares_L = values_LM.new_tensor(list(self.levels.values()))
        if self.log_variances is None:
            each_L = values_LM @ self._weights(matches)
        else:
            logs_LM = self.log_variances.to(values_LM.dtype).view_as(values_LM)
            each_L = ((torch.exp(-logs_LM) * values_LM + logs_LM) / 2).mean(1)
        return matches[0].counts_B.sum() * (shares_L * each_L).sum()

    def compare_pair(self, place: int, student: Sequence[Tensor], teacher: Sequence[Tensor], told: Told) -> Tensor:
        """A pair alone, as if it were the only one."""
        return self.compare([student], [teacher], told)

    def _match(self, place: int, student: Tensor, teacher: Tensor, told: Told) -> _Match:
        pair, project = self.pairs[place], self.projectors[place]
        rows = rows_of(student, teacher, project, pair, told)
        if is_map(pair):
            means_BD, theirs_BE = (to_map(x, pair, told).mean((2, 3)) for x in (student, teacher))
            means_BE = project(means_BD[:, :, None, None]).flatten(1)
        else:
            means_BD, theirs_BE = (pooled(x, told.mask_BT, "mean") for x in (student, teacher))
            means_BE = project(means_BD)  # a linear map of the mean is the mean of the mapped
        return _Match(*rows, means_BE, means_BD, theirs_BE, told.counts(means_BD).squeeze(1))

    def _means(self, matches: Sequence[_Match]) -> list[Tensor]:
        """d(s, t) of mean rows: of each match, or of all the teacher's layers by attention."""
        if self.term.layer_map == "matched":
            return [_mean(row_distance(m.means_BE, m.their_means_BE, "layer_norm"), m.counts_B) for m in matches]
        theirs_BKE = torch.stack([m.their_means_BE for m in matches], dim=1)
        size = theirs_BKE.shape[-1:]
        keys_BKE, found = layer_norm(theirs_BKE, size), []
        for match in matches:
            query_B1E = layer_norm(match.means_BE, size)[:, None]
            shares_BK = torch.softmax((query_B1E * keys_BKE).sum(-1) / size[0] ** 0.5, dim=1)
            distances_BK = (query_B1E - keys_BKE).square().mean(-1)
            found.append(_mean((shares_BK * distances_BK).sum(1), match.counts_B))
        return found

    @torch.no_grad()
    def _weights(self, matches: Sequence[_Match]) -> Tensor:
        """What each match counts, [M], 1 together."""
        if self.term.weighting == "fixed":
            return matches[0].mine_NE.new_full((len(matches),), 1 / len(matches))
        behind = [_mean(cosine_distance(m.mine_NE, m.theirs_NE), m.counts_N) for m in matches]
        return torch.softmax(torch.stack(behind) / self.term.temperature, dim=0)


def _tokens(matches: Sequence[_Match]) -> list[Tensor]:
    return [_mean(row_distance(m.mine_NE, m.theirs_NE, "layer_norm"), m.counts_N) for m in matches]


def _batch(matches: Sequence[_Match]) -> list[Tensor]:
    """1 - CKA; 0 where the teacher was asked about too few samples."""
    if len(matches[0].means_BD) < LEAST:
        return [m.means_BD[:0].sum() for m in matches]
    return [1 - linear_cka(m.means_BD, m.their_means_BE) for m in matches]


def _mean(values_N: Tensor, counts_N: Tensor) -> Tensor:
    return (values_N * counts_N).sum() / counts_N.sum().clamp(min=torch.finfo(counts_N.dtype).tiny)
