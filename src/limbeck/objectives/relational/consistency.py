"""Consistency between views of a sample.

Shapes: M samples, W views of each, B = W M rows, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from limbeck.core.errors import RecipeError
from limbeck.core.parts import part
from limbeck.core.types import Dist
from limbeck.objectives.base import BatchTerm, Context, FeatureLoss, Pair
from limbeck.objectives.relational._common import class_logits


@part
class Consistency(BatchTerm):
    """The student answers alike however a sample was augmented; the batch holds several views of each.

    Of each sample, with p_1, p_2, ... the softmax of the views' logits / T, and means over views:
    to `teacher` T^2 KL(t_1 || p_w), w > 1, with t_1 the teacher's answer to the first view; to `student` T^2
    KL(p_1 || p_w), w > 1, where p_1 gets no gradient; to `each_other` T^2 (KL(p_v || p_w) + KL(p_w || p_v)) / 2
    over all pairs. A sample whose target's likeliest class is below the threshold counts 0.

    Reference:
        Xie et al., UDA, 2019, arXiv:1904.12848; Sohn et al., FixMatch, 2020, arXiv:2001.07685 (threshold);
        Liang et al., R-Drop, 2021, arXiv:2106.14448 (each other).
    """

    to: Literal["teacher", "student", "each_other"] = "teacher"
    """Whose answer to the first view the others follow."""
    temperature: float = Field(default=1.0, gt=0)
    """Softens both distributions; 1 leaves them as they are."""
    threshold: float = Field(default=0.0, ge=0, lt=1)
    """How sure the target must be, at T = 1, to count. Not with `each_other`, which has no target."""

    reads_dist: ClassVar[bool] = True
    needs_views: ClassVar[int] = 2

    @property
    def asks_teacher(self) -> bool:  # type: ignore[override]
        """Only where the teacher is followed."""
        return self.to == "teacher"

    def build(self, pairs: Sequence[Pair]) -> FeatureLoss:
        if self.threshold and self.to == "each_other":
            raise RecipeError("consistency with each other has no target to be sure", got=f"threshold {self.threshold}")
        return _Consistency(self)


class _Consistency(FeatureLoss):
    def __init__(self, term: Consistency):
        super().__init__()
        self.term = term

    def forward(
        self, student: Sequence[Sequence[Tensor]], teacher: Sequence[Sequence[Tensor]], context: Context
    ) -> Tensor:
        """The sum over rows, each of which counts what its sample does."""
        term, views = self.term, context.batch.views
        if views < term.needs_views:
            raise RecipeError("consistency compares views of a sample", got="one", fix="views: [clean, augmented]")

        def each_view(dist: Dist | None) -> Tensor:
            return class_logits(dist, term.label).unflatten(0, (views, -1))

        logits_WMC = each_view(context.said)
        logs_WMC = torch.log_softmax(logits_WMC / term.temperature, -1)
        if term.to == "each_other":
            both = [(_kl(p, q) + _kl(q, p)) / 2 for p, q in combinations(logs_WMC, 2)]
            value_M = torch.stack(both).mean(0)
        else:
            given_MC = (logits_WMC if term.to == "student" else each_view(context.told))[0].detach()
            target_MC = torch.log_softmax(given_MC.to(logs_WMC) / term.temperature, -1)
            sure_M = given_MC.softmax(-1).amax(-1) >= term.threshold
            value_M = torch.stack([_kl(target_MC, other) for other in logs_WMC[1:]]).mean(0) * sure_M
        if context.weights is not None and term.to == "teacher":
            value_M = value_M * context.weights.to(value_M).unflatten(0, (views, -1))[0]
        return views * term.temperature**2 * value_M.sum()


def _kl(target_MC: Tensor, other_MC: Tensor) -> Tensor:
    """KL(target || other) of log-probabilities, [M]."""
    return (target_MC.exp() * (target_MC - other_MC)).sum(-1)
