"""Relations between queries, between keys and between values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field
from torch import nn

from limbeck.core.parts import part
from limbeck.objectives.base import FeatureLoss, FeatureTerm, Pair
from limbeck.objectives.features._attention import RelationLoss, check_divides, heads_of, projections
from limbeck.objectives.features._common import check_pairs, layers


@part
class Relations(FeatureTerm):
    """How queries relate to queries, keys to keys and values to values (MiniLMv2).

    sum_i 1/A sum_a KL(R^T_ai || R^S_ai) with R_a = softmax(X_a X_a^T / sqrt d) over the real positions i, X one of Q, K
    and V cut into A relation heads of width d; averaged over Q, K, V and the matched modules. Widths and numbers of
    attention heads may differ; there is no projector.

    Reference:
        Wang et al., MiniLMv2: Multi-Head Self-Attention Relation Distillation, 2020, arXiv:2012.15828.
    """

    relation_heads: int | None = Field(default=None, ge=1)
    """A, a divisor of both widths; left out: the teacher's number of attention heads."""
    relations: list[Literal["query", "key", "value"]] = Field(default=["query", "key", "value"], min_length=1)
    """Which relations are learned."""

    def taps(self, path: str, model: nn.Module) -> tuple[str, ...]:
        return projections(model, path, self.relations)

    def build(self, pairs: Sequence[Pair]) -> FeatureLoss:
        check_pairs(pairs, (3,))
        heads = []
        for pair in pairs:
            heads.append(self.relation_heads or heads_of(layers(pair)[1]))
            check_divides(heads[-1], pair)
        return RelationLoss(pairs, heads)
