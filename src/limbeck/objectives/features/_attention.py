"""What terms over attention modules share: finding Q, K and V, heads, and softmaxes over real positions.

Shapes: B batch, A heads, T positions (queries, keys), W width of all heads together, d width of one head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import gcd

import torch
from torch import Tensor, nn

from limbeck.core.errors import ModelError, RecipeError
from limbeck.objectives.base import Layer, Pair
from limbeck.objectives.features._common import Compared, Told, check_lengths, layers, places

NAMES: Mapping[str, tuple[str, ...]] = {
    "query": ("query", "q_proj", "q_lin", "query_proj", "q"),
    "key": ("key", "k_proj", "k_lin", "key_proj", "k"),
    "value": ("value", "v_proj", "v_lin", "value_proj", "v"),
}
"""What attention modules call their projections."""

HIDDEN = -1e30
"""The score of a key that is not seen; finite, so that differences of it are numbers."""


def projections(model: nn.Module, path: str, wanted: Sequence[str]) -> tuple[str, ...]:
    """Full names of an attention module's projections.

    Args:
        model: the model.
        path: the attention module, or a layer that holds exactly one.
        wanted: of `query`, `key` and `value`.

    Raises:
        ModelError: there are none, or several modules have them; the message says what there is.
    """
    module, colon, _ = path.partition(":")
    if colon:
        raise ModelError("this term reads an attention module's projections, not its input or output", got=path)
    inside = dict(model.get_submodule(module).named_modules())
    found = [name for name, part in inside.items() if all(_child(part, each) for each in NAMES)]
    if "" in found:
        found = [""]
    if len(found) != 1:
        children = [name for name in inside if name and name.count(".") < 2]
        raise ModelError(
            f"'{module}' holds {len(found) or 'no'} attention modules with projections of their own for Q, K and V",
            got=", ".join(found or children[:12]) or type(inside[""]).__name__,
            allowed=" | ".join("/".join(names) for names in zip(*NAMES.values(), strict=True))
            + "; not Q, K and V in one matrix (qkv, c_attn, query_key_value)",
            fix="match the attention module itself" if found else None,
        )
    base = ".".join(filter(None, [module, found[0]]))
    return tuple(f"{base}.{_child(inside[found[0]], each)}" for each in wanted)


def _child(module: nn.Module, what: str) -> str | None:
    return next((name for name in NAMES[what] if isinstance(getattr(module, name, None), nn.Module)), None)


def heads_of(layer: Layer, *, keys: bool = False) -> int:
    """A layer's number of heads, of its queries or of its keys and values, as its model's config says.

    Raises:
        RecipeError: the config does not say, or the width cannot be divided by it.
    """
    heads = getattr(layer.config, "num_attention_heads", None)
    if keys:
        heads = getattr(layer.config, "num_key_value_heads", None) or heads
    if not isinstance(heads, int) or any(shape[-1] % heads for shape in layer.shapes[:1]):
        raise RecipeError(
            "the number of attention heads is not known",
            got=f"{heads} in the config, width {layer.shapes[0][-1]} at {layer.path}",
        )
    return heads


def split_heads(rows_BTW: Tensor, heads: int) -> Tensor:
    """[B, T, W] as [B, A, T, d]."""
    return rows_BTW.unflatten(-1, (heads, -1)).transpose(1, 2)


def without_padding(rows_BTW: Tensor, real_BT: Tensor) -> Tensor:
    """Rows with zeros for padding, so that what is there reaches nothing."""
    return rows_BTW.masked_fill(~real_BT[..., None], 0)


def log_softmax_over(scores_BATT: Tensor, seen: Tensor) -> Tensor:
    """Log-probabilities over the keys that are seen; for the others they are finite, and the probability is exactly 0.

    Args:
        scores_BATT: a score for each query and key.
        seen: which keys each query sees, as wide as the scores or broadcast to them.
    """
    return torch.log_softmax(scores_BATT.masked_fill(~seen, HIDDEN), dim=-1)


def kl_over(teacher_BATT: Tensor, student_BATT: Tensor) -> Tensor:
    """KL(teacher || student) of log-probabilities from `log_softmax_over`, averaged over heads: [B, T]."""
    return (teacher_BATT.exp() * (teacher_BATT - student_BATT)).sum(-1).mean(1)


class RelationLoss(Compared):
    """KL of softmax(X X^T / sqrt d) between teacher and student, averaged over heads and over the taps (X).

    Args:
        pairs: layers with as many taps each.
        heads: by pair, the number of heads that both are cut into.
    """

    def __init__(self, pairs: Sequence[Pair], heads: Sequence[int]):
        super().__init__(pairs)
        self.heads = tuple(heads)

    def compare_pair(self, place: int, student: Sequence[Tensor], teacher: Sequence[Tensor], told: Told) -> Tensor:
        told.check_same_text()
        check_lengths(student[0], teacher[0], self.pairs[place])
        real_BT, counts_BT = told.real(student[0]), told.counts(student[0])
        values = [
            kl_over(self._relation(y, place, real_BT), self._relation(x, place, real_BT))
            for x, y in zip(student, teacher, strict=True)
        ]
        return (counts_BT * torch.stack(values).mean(0)).sum()

    def _relation(self, rows_BTW: Tensor, place: int, real_BT: Tensor) -> Tensor:
        x_BATd = split_heads(without_padding(rows_BTW, real_BT), self.heads[place])
        scores_BATT = x_BATd @ x_BATd.transpose(-1, -2) * x_BATd.shape[-1] ** -0.5
        return log_softmax_over(scores_BATT, real_BT[:, None, None, :])

    def between(self) -> list[str]:
        return [f"{heads} relation heads" for heads in self.heads]


def check_divides(heads: int, pair: Pair) -> None:
    """Make sure that all widths of a pair can be cut into so many heads."""
    widths = [shape[-1] for layer in layers(pair) for shape in layer.shapes]
    if any(size % heads for size in widths):
        common = gcd(*widths)
        allowed = ", ".join(str(n) for n in range(1, common + 1) if common % n == 0)
        raise RecipeError(
            f"widths cannot be cut into {heads} relation heads",
            got=places(pair),
            allowed=f"relation_heads: {allowed}",
        )
