"""Relations between values, head by head."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from limbeck.core.errors import RecipeError
from limbeck.core.parts import part
from limbeck.objectives.base import FeatureLoss, FeatureTerm, Pair
from limbeck.objectives.features._attention import RelationLoss, check_divides, heads_of, projections
from limbeck.objectives.features._common import check_pairs, layers, places


@part
class ValueRelations(FeatureTerm):
    """How values relate to values in each attention head (MiniLM).

    sum_i 1/A sum_a KL(R^T_ai || R^S_ai) with R_a = softmax(V_a V_a^T / sqrt d) over the real positions i and the A
    heads, of which both models must have as many. MiniLM takes the last layer, and adds `attention_maps` with
    `loss: kl`.

    Reference:
        Wang et al., MiniLM: Deep Self-Attention Distillation, 2020, arXiv:2002.10957.
    """

    def taps(self, path: str, model: nn.Module) -> tuple[str, ...]:
        return projections(model, path, ("value",))

    def build(self, pairs: Sequence[Pair]) -> FeatureLoss:
        check_pairs(pairs, (3,))
        heads = []
        for pair in pairs:
            mine, theirs = (heads_of(layer, keys=True) for layer in layers(pair))
            if mine != theirs:
                raise RecipeError(
                    "value relations need as many heads of one as of the other",
                    got=f"{mine} and {theirs} heads at {places(pair)}",
                    fix="type: relations, with relations: [value], takes any numbers",
                )
            check_divides(mine, pair)
            heads.append(mine)
        return RelationLoss(pairs, heads)
