"""What relational terms share: one row a sample, pooled of a layer or of its answer, compared with other rows.

Shapes: B batch, T positions, D and E widths of student and teacher, H height, W width, C classes, M members of a
mixture.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor

from limbeck.core.errors import RecipeError
from limbeck.core.parts import part
from limbeck.core.types import Dense, Dist, Mixture, Unit
from limbeck.objectives.base import FeatureLoss, FeatureTerm, Layer, Pair
from limbeck.objectives.features._common import Compared, Told, check_pairs, layers, places

Pool = Literal["mean", "first", "last", "none"]


@part
class Pooled(FeatureTerm, ABC):
    """A term that compares the samples of a micro-batch with each other, in rows that layers are pooled to.

    Its unit is the micro-batch: it gives a mean over the samples, which the step averages over micro-batches.
    """

    pool: Pool = "mean"
    """What a sample's row is: the mean over its real positions or places, the first or the last real position, or, with
    `none`, the layer as it is (maps [C, H, W] are flattened)."""

    unit: ClassVar[Unit] = "batch"
    adds_up: ClassVar[bool] = False

    @property
    def least(self) -> int:
        """Samples without which the term says nothing, or not all that it is asked for."""
        return 2


@part
class Relational(Pooled, ABC):
    """A relational term that is a formula on pooled rows."""

    @abstractmethod
    def relate(self, mine_BD: Tensor, theirs_BE: Tensor, weights_B: Tensor) -> Tensor:
        """The term's value for a micro-batch, a scalar.

        Args:
            mine_BD: the student's rows, at least `least`.
            theirs_BE: the teacher's rows of the same samples.
            weights_B: the teacher's say in each.
        """

    def build(self, pairs: Sequence[Pair]) -> FeatureLoss:
        check_pooled(pairs, self.pool)
        return _Related(self, pairs)


class PooledLoss(Compared):
    """A loss on pooled rows.

    Args:
        term: how layers are pooled, and how many samples it needs.
        pairs: the layers.
    """

    def __init__(self, term: Pooled, pairs: Sequence[Pair]):
        super().__init__(pairs)
        self.pool, self.least, self.label = term.pool, term.least, term.label

    def pooled(self, student: Tensor, teacher: Tensor, told: Told) -> tuple[Tensor, Tensor]:
        """Both layers as a row for each sample."""
        return pooled(student, told.mask_BT, self.pool), pooled(teacher, told.teacher_mask_BT, self.pool)


class _Related(PooledLoss):
    def __init__(self, term: Relational, pairs: Sequence[Pair]):
        super().__init__(term, pairs)
        self.term = term

    def compare_pair(self, place: int, student: Sequence[Tensor], teacher: Sequence[Tensor], told: Told) -> Tensor:
        told.check_enough(self.least, self.training)
        mine_BD, theirs_BE = self.pooled(student[0], teacher[0], told)
        if len(mine_BD) < self.least:  # the teacher was asked about too few
            return mine_BD[:0].sum()
        return self.term.relate(mine_BD, theirs_BE, told.weights_B)

    def between(self) -> list[str]:
        return [f"pool: {self.pool}"] * len(self.pairs)


def check_pooled(pairs: Sequence[Pair], pool: Pool) -> None:
    """Make sure that layers can be pooled in this way.

    Raises:
        RecipeError: a map has no first or last position, or nothing is matched.
    """
    check_pairs(pairs, (2, 3, 4), mixed="any")
    for pair in pairs:
        if pool in ("first", "last") and any(len(layer.shapes[0]) == 4 for layer in layers(pair)):
            raise RecipeError(f"a map has no {pool} position", got=places(pair), allowed="pool: mean, pool: none")


def pooled(feature: Tensor, mask_BT: Tensor | None, pool: Pool) -> Tensor:
    """A layer as one row for each sample, [B, D].

    Args:
        feature: [B, D], [B, T, D] or [B, C, H, W].
        mask_BT: which positions of the texts are real; None for pictures.
        pool: what is taken.

    Raises:
        RecipeError: a text's positions are to be taken as they are, or are not those of the layer.
    """
    if feature.ndim == 2:
        return feature
    if feature.ndim == 4:
        return feature.flatten(1) if pool == "none" else feature.mean((2, 3))
    if mask_BT is None:
        mask_BT = torch.ones(feature.shape[:2], dtype=torch.bool, device=feature.device)
    elif pool == "none" or mask_BT.shape != feature.shape[:2]:
        raise RecipeError(
            "the positions of texts cannot be taken as one row",
            got=f"pool: {pool}, {feature.shape[1]} positions for {mask_BT.shape[1]} tokens",
            allowed="pool: mean, pool: first, pool: last, on a layer that gives one row for each token",
        )
    if pool == "none":
        return feature.flatten(1)
    if pool == "mean":
        total_BD = feature.masked_fill(~mask_BT[..., None], 0).sum(1)
        return total_BD / mask_BT.sum(1, keepdim=True).clamp(min=1)
    places_T = torch.arange(mask_BT.shape[1], device=mask_BT.device)
    # The first real position has the smallest number of all real ones, the last the largest.
    numbers_BT = torch.where(mask_BT, places_T, len(places_T) if pool == "first" else -1)
    chosen_B = numbers_BT.amin(1) if pool == "first" else numbers_BT.amax(1)
    chosen_B = chosen_B.clamp(0, len(places_T) - 1)
    return feature[torch.arange(len(feature), device=feature.device), chosen_B]


def class_logits(dist: Dist | None, label: str) -> Tensor:
    """Logits in at least float32, [B, C]; of a mixture its log-probabilities.

    Args:
        dist: what a model says of whole samples.
        label: of the term that asks, for the message.

    Raises:
        RecipeError: it is no classifier's answer.
    """
    if isinstance(dist, Mixture):
        logs_MBC = torch.stack([class_logits(member, label).log_softmax(-1) for member in dist.members])
        return (logs_MBC + dist.log_weights.T[..., None]).logsumexp(0)
    if not isinstance(dist, Dense) or dist.logits.ndim != 2:
        got = "none" if dist is None else type(dist).__name__
        raise RecipeError(f"{label} compares answers to whole samples", got=got, allowed="classifiers")
    return dist.logits if dist.logits.dtype == torch.float64 else dist.logits.float()


def pooled_width(layer: Layer, pool: Pool) -> int:
    """The width of a layer's pooled rows."""
    shape = layer.shapes[0]
    if pool == "none":
        return shape[1:].numel()
    return shape[1] if len(shape) == 4 else shape[-1]
