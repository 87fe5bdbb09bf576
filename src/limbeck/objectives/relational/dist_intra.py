"""Correlation of a class's probabilities over the samples of a batch.

Shapes: B samples, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field
from torch import Tensor

from limbeck.core.errors import RecipeError
from limbeck.core.parts import part
from limbeck.core.types import IGNORE, Unit
from limbeck.objectives.base import BatchTerm, Context, FeatureLoss, Pair
from limbeck.objectives.distribution.dist import correlation
from limbeck.objectives.relational._common import class_logits


@part
class DISTIntra(BatchTerm):
    """DIST, intra-class: one minus the correlation of student and teacher over a batch's samples, class by class.

    1 - 1/C sum_c corr(p[:, c], q[:, c]), p and q the softmax of teacher's and student's logits / T, the correlation
    taken over the samples of a micro-batch. Beside `dist`, which is taken over classes, it is the other half of the
    paper's loss. Classifiers only; a micro-batch with fewer samples than classes gives it little to go by.

    Reference:
        Huang et al., Knowledge Distillation from A Stronger Teacher, 2022, arXiv:2205.10536.
    """

    temperature: float = Field(default=1.0, gt=0)
    """Softens both distributions; 1 leaves them as they are."""

    asks_teacher: ClassVar[bool] = True
    unit: ClassVar[Unit] = "batch"
    adds_up: ClassVar[bool] = False
    reads_dist: ClassVar[bool] = True

    def build(self, pairs: Sequence[Pair]) -> FeatureLoss:
        return _Intra(self)


class _Intra(FeatureLoss):
    def __init__(self, term: DISTIntra):
        super().__init__()
        self.term = term

    def forward(
        self, student: Sequence[Sequence[Tensor]], teacher: Sequence[Sequence[Tensor]], context: Context
    ) -> Tensor:
        """One minus the mean correlation of a micro-batch; 0 where fewer than two samples count."""
        mine_BC, theirs_BC = (class_logits(dist, self.term.label) for dist in (context.said, context.told))
        theirs_BC = theirs_BC.detach()
        if mine_BC.shape != theirs_BC.shape:
            raise RecipeError(
                f"{self.term.label} compares the same classes",
                got=f"{mine_BC.shape[1]} classes of the student, {theirs_BC.shape[1]} of the teacher",
            )
        if self.training and len(mine_BC) < 2:
            raise RecipeError(
                f"{self.term.label} compares the samples of a micro-batch with each other",
                got="one sample",
                fix="a larger per_device_train_batch_size, of which the global batch is a multiple",
            )
        counted_B = context.batch.labels != IGNORE
        if context.weights is not None:
            counted_B = counted_B & (context.weights != 0)
        if counted_B.sum() < 2:
            return mine_BC[:0].sum()
        mine_BC = _columns(mine_BC[counted_B] / self.term.temperature)
        theirs_BC = _columns(theirs_BC[counted_B].to(mine_BC) / self.term.temperature)
        share = 1.0 if context.weights is None else context.weights[counted_B].mean()
        return share * (1 - correlation(mine_BC, theirs_BC, dim=0).mean())


def _columns(logits_BC: Tensor) -> Tensor:
    """Probabilities, each class's divided by its largest: no correlation sees it, and rare classes keep theirs."""
    logs_BC = logits_BC.log_softmax(1)
    return (logs_BC - logs_BC.detach().amax(0)).exp()
