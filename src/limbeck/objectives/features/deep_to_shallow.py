"""Self-distillation: a student's shallow layers learn from its own final answer.

Shapes: B batch, T positions, D width, C channels, H height, W width of a map, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from limbeck.alignment.projectors import LinearProjector
from limbeck.core.errors import RecipeError
from limbeck.core.parts import part
from limbeck.core.types import Dense
from limbeck.objectives.base import BatchTerm, Context, FeatureLoss, Pair
from limbeck.objectives.relational._common import pooled


@part
class DeepToShallow(BatchTerm):
    """Classifiers on shallow layers learn from the student's own final answer and from the labels; no teacher.

    mean_l [(1 - h) T^2 KL(p || q_l) + h CE(y, q_l)] with p the softmax of the student's logits / T, without gradient,
    q_l that of layer l's classifier, h the `hard_share`, and CE at T = 1. A layer's classifier is a linear map of its
    mean over positions. The classifiers learn with the student and stay behind. The final answer itself learns from
    other terms of the stage, such as `cross_entropy`.

    Reference:
        Zhang et al., Be Your Own Teacher, 2019, arXiv:1905.08094 (without its hint on features).
    """

    layers: Annotated[list[str], Field(min_length=1)]
    """The student's layers that learn: paths with globs and ranges, for instance `"encoder.layer.{0..2}"`."""
    temperature: float = Field(default=3.0, gt=0)
    """Softens both distributions."""
    hard_share: float = Field(default=0.5, ge=0, le=1)
    """Share of the labels; the rest is the final answer's."""

    reads_dist: ClassVar[bool] = True

    def pairs(self) -> Sequence[tuple[str, str | None]]:
        return [(path, None) for path in self.layers]

    def taps(self, path: str, model: nn.Module) -> tuple[str, ...]:
        head: Any = getattr(model, "get_output_embeddings", lambda: None)()
        if head is not None:
            raise RecipeError(
                "deep_to_shallow puts classifiers on layers, and this student answers token by token",
                got=type(model).__name__,
                allowed="classifiers",
            )
        return (path,)

    def build(self, pairs: Sequence[Pair]) -> FeatureLoss:
        for pair in pairs:
            if len(pair.student.shapes[0]) not in (2, 3, 4):
                got = f"{pair.student.path} {list(pair.student.shapes[0])}"
                raise RecipeError("a classifier cannot stand on this layer", got=got, allowed="rows, sequences, maps")
        return _DeepToShallow(self, pairs)


class _DeepToShallow(FeatureLoss):
    def __init__(self, term: DeepToShallow, pairs: Sequence[Pair]):
        super().__init__()
        self.term = term
        classes = int(pairs[0].student.config.num_labels)  # type: ignore[attr-defined]
        shapes = [pair.student.shapes[0] for pair in pairs]
        widths = [shape[1] if len(shape) == 4 else shape[-1] for shape in shapes]
        self.classifiers = nn.ModuleList(LinearProjector(width, classes) for width in widths)

    def forward(
        self, student: Sequence[Sequence[Tensor]], teacher: Sequence[Sequence[Tensor]], context: Context
    ) -> Tensor:
        """The sum over samples of the mean over layers."""
        assert isinstance(context.said, Dense), "classifiers give logits"
        given_BK = context.said.logits.detach()
        dtype = torch.float64 if given_BK.dtype == torch.float64 else torch.float32
        with torch.autocast(given_BK.device.type, enabled=False):
            rows = (pooled(taps[0].to(dtype), context.batch.real, "mean") for taps in student)
            values = [
                self._layer(classifier(row_BD), given_BK.to(dtype), context)
                for classifier, row_BD in zip(self.classifiers, rows, strict=True)
            ]
            return torch.stack(values).mean()

    def _layer(self, logits_BK: Tensor, given_BK: Tensor, context: Context) -> Tensor:
        term, batch = self.term, context.batch
        target_BK = (given_BK / term.temperature).log_softmax(-1)
        soft = (target_BK.exp() * (target_BK - (logits_BK / term.temperature).log_softmax(-1))).sum()
        hard_B = cross_entropy(logits_BK, batch.labels, reduction="none")
        if batch.blend is not None:
            share_B = batch.blend.share.to(hard_B)
            other_B = cross_entropy(logits_BK, batch.blend.labels, reduction="none")
            hard_B = (1 - share_B) * hard_B + share_B * other_B
        return (1 - term.hard_share) * term.temperature**2 * soft + term.hard_share * hard_B.sum()

    def between(self) -> list[str]:
        return [f"classifier {each.in_features} -> {each.out_features}" for each in self.classifiers]
