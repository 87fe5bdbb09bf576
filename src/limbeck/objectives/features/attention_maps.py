"""Attention maps: the student looks where the teacher looks.

Shapes: B batch, A heads (Q of the student, U of the teacher), T positions (queries, keys), W width of all heads
together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import model_validator
from torch import Tensor, nn

from limbeck.core.errors import ModelError, RecipeError
from limbeck.core.parts import part
from limbeck.objectives.base import FeatureLoss, FeatureTerm, Layer, Pair
from limbeck.objectives.features._attention import (
    heads_of,
    kl_over,
    log_softmax_over,
    projections,
    split_heads,
    without_padding,
)
from limbeck.objectives.features._common import Compared, Told, check_lengths, check_pairs, layers, places

DRIFT = 0.01
"""How far a row of probabilities may be from 1 by rounding; attention dropout takes it farther."""


@part
class AttentionMaps(FeatureTerm):
    """Attention maps, head by head: MSE of the scores, or KL of the probabilities.

    `mse`: sum_i 1/A sum_a 1/T sum_j (S_aij - S'_aij)^2 over real queries i and keys j, with S = Q K^T / sqrt d;
    `kl`: sum_i 1/A sum_a KL(P'_ai || P_ai) with P the softmax of S. Averaged over the matched modules. Models with
    different numbers of heads are compared by the mean over their heads.

    With `source: qk` the scores are computed from an attention module's queries and keys, whatever the attention
    implementation; not for models whose positions enter there (rotary, relative). With `source: maps` the
    probabilities that the module gives are read; both models need `attn_implementation: eager`, and the student no
    attention dropout, which would tear holes into its maps.

    Reference:
        Jiao et al., TinyBERT: Distilling BERT for Natural Language Understanding, 2019, arXiv:1909.10351.
    """

    source: Literal["qk", "maps"] = "qk"
    """Where the maps come from: computed from queries and keys, or read from the attention module."""
    loss: Literal["mse", "kl"] = "mse"
    """What is compared: scores (`mse`, TinyBERT) or probabilities (`kl`, MiniLM)."""
    causal: bool = False
    """Compare only what lies before each position; for decoders with `source: qk`."""

    @model_validator(mode="after")
    def _scores_are_not_in_maps(self) -> AttentionMaps:
        if self.source == "maps" and self.loss == "mse":
            raise ValueError("maps hold probabilities and no scores: take `loss: kl`, or `source: qk`")
        return self

    def taps(self, path: str, model: nn.Module) -> tuple[str, ...]:
        if self.source == "qk":
            found = projections(model, path, ("query", "key"))
            _check_positions(model, found[0].rpartition(".")[0])
            return found
        kind = getattr(getattr(model, "config", None), "_attn_implementation", None)
        if kind not in (None, "eager"):
            raise ModelError(
                f"{type(model).__name__} keeps no attention maps",
                got=f"attn_implementation: {kind}",
                allowed="attn_implementation: eager",
                fix="set it for this model, or take `source: qk`",
            )
        return (path if ":" in path else f"{path}:output.1",)

    def build(self, pairs: Sequence[Pair]) -> FeatureLoss:
        check_pairs(pairs, (4,) if self.source == "maps" else (3,))
        for pair in pairs:
            if self.source == "maps":
                _check_maps(pair)
                continue
            for layer in layers(pair):
                _key_heads(layer)
        return _Scores(self, pairs) if self.source == "qk" else _Maps(pairs)


_POSITIONS = ("rope_parameters", "rope_theta", "rotary_dim", "relative_attention", "relative_attention_num_buckets")
"""What a config says of positions that enter the scores."""


def _check_positions(model: nn.Module, module: str) -> None:
    config = getattr(model, "config", None)
    found = [name for name in _POSITIONS if getattr(config, name, None)]
    found += [name for name, _ in model.get_submodule(module).named_modules() if "relative" in name]
    if found:
        raise ModelError(
            f"the scores of {type(model).__name__} do not follow from its queries and keys alone",
            got=f"rotary or relative positions: {', '.join(found)}",
            fix="source: maps, loss: kl; or the term `relations`",
        )


def _check_maps(pair: Pair) -> None:
    one, other = (layer.shapes[0] for layer in layers(pair))
    if one[2] != one[3] or one[2:] != other[2:]:
        raise RecipeError("attention maps of different lengths cannot be compared", got=places(pair))


def _key_heads(layer: Layer) -> tuple[int, int]:
    """Numbers of heads of queries and of keys; fewer keys where several queries share one."""
    heads = heads_of(layer)
    size = layer.shapes[0][-1] // heads
    keys, rest = divmod(layer.shapes[1][-1], size)
    if rest or not keys or heads % keys:
        raise RecipeError(
            "queries and keys do not fit",
            got=f"{heads} heads, queries {list(layer.shapes[0])}, keys {list(layer.shapes[1])} at {layer.path}",
        )
    return heads, keys


class _Scores(Compared):
    """Scores are computed from queries and keys."""

    def __init__(self, term: AttentionMaps, pairs: Sequence[Pair]):
        super().__init__(pairs)
        self.loss, self.causal = term.loss, term.causal
        self.heads = [[_key_heads(layer) for layer in layers(p)] for p in pairs]

    def compare_pair(self, place: int, student: Sequence[Tensor], teacher: Sequence[Tensor], told: Told) -> Tensor:
        told.check_same_text()
        check_lengths(student[0], teacher[0], self.pairs[place])
        real_BT, counts_BT = told.real(student[0]), told.counts(student[0])
        seen = real_BT[:, None, None, :]
        if self.causal:
            seen = seen & torch.ones(2 * seen.shape[-1:], dtype=torch.bool, device=seen.device).tril()
        mine, theirs = self.heads[place]
        mine_BQTT, theirs_BUTT = _scores(student, mine, real_BT), _scores(teacher, theirs, real_BT)
        one_head = mine[0] != theirs[0]
        if self.loss == "kl":
            logs = [log_softmax_over(scores, seen) for scores in (mine_BQTT, theirs_BUTT)]
            mine_log, theirs_log = [_mean_probability(x) if one_head else x for x in logs]
            return (counts_BT * kl_over(theirs_log, mine_log)).sum()
        if one_head:
            mine_BQTT, theirs_BUTT = mine_BQTT.mean(1, keepdim=True), theirs_BUTT.mean(1, keepdim=True)
        squares = (mine_BQTT - theirs_BUTT).square() * seen
        return (counts_BT * (squares.sum(-1) / seen.sum(-1).clamp(min=1)).mean(1)).sum()

    def between(self) -> list[str]:
        return [_heads_in_words(mine[0], theirs[0]) for mine, theirs in self.heads]


def _scores(taps: Sequence[Tensor], heads: tuple[int, int], real_BT: Tensor) -> Tensor:
    """Q K^T / sqrt d, [B, A, T, T]."""
    q_BATd = split_heads(without_padding(taps[0], real_BT), heads[0])
    k_BATd = split_heads(without_padding(taps[1], real_BT), heads[1])
    k_BATd = k_BATd.repeat_interleave(heads[0] // heads[1], dim=1)
    return q_BATd @ k_BATd.transpose(-1, -2) * q_BATd.shape[-1] ** -0.5


def _mean_probability(logs_BATT: Tensor) -> Tensor:
    """Log of the mean over heads of probabilities."""
    return torch.logsumexp(logs_BATT, dim=1, keepdim=True) - math.log(logs_BATT.shape[1])


class _Maps(Compared):
    """Probabilities are read."""

    def __init__(self, pairs: Sequence[Pair]):
        super().__init__(pairs)
        self.checked = False

    def compare_pair(self, place: int, student: Sequence[Tensor], teacher: Sequence[Tensor], told: Told) -> Tensor:
        told.check_same_text()
        mine_BQTT, theirs_BUTT = student[0], teacher[0]
        check_lengths(mine_BQTT[:, 0], theirs_BUTT[:, 0], self.pairs[place])
        real_BT, counts_BT = told.real(mine_BQTT[:, 0]), told.counts(mine_BQTT[:, 0])
        both_B1TT = (real_BT[:, None, :] & real_BT[:, :, None])[:, None]
        mine_BQTT, theirs_BUTT = mine_BQTT.masked_fill(~both_B1TT, 0), theirs_BUTT.masked_fill(~both_B1TT, 0)
        self._check_dropout(mine_BQTT, real_BT)
        if mine_BQTT.shape[1] != theirs_BUTT.shape[1]:
            mine_BQTT, theirs_BUTT = mine_BQTT.mean(1, keepdim=True), theirs_BUTT.mean(1, keepdim=True)
        tiny = torch.finfo(mine_BQTT.dtype).tiny
        mine, theirs = (p / p.sum(-1, keepdim=True).clamp(min=tiny) for p in (mine_BQTT, theirs_BUTT))
        # Where the teacher gives nothing, 0 log 0 is 0; a student's 0 is the smallest number there is.
        values = torch.xlogy(theirs, theirs) - theirs * mine.clamp(min=tiny).log()
        return (counts_BT * values.sum(-1).mean(1)).sum()

    def _check_dropout(self, maps_BATT: Tensor, real_BT: Tensor) -> None:
        if self.checked or not self.training or not len(maps_BATT):
            return
        rows_N = maps_BATT.detach().sum(-1).transpose(0, 1)[:, real_BT].flatten()
        drift = float((rows_N - 1).abs().max()) if len(rows_N) else 0.0
        if drift > DRIFT:
            raise ModelError(
                "the student's attention maps do not sum to 1, as after attention dropout",
                got=f"a row that sums to {1 + drift:.3g} or {1 - drift:.3g}",
                fix="set the student's attention dropout to 0 in its config (attention_probs_dropout_prob, "
                "attention_dropout), or take `source: qk`",
            )
        self.checked = True

    def between(self) -> list[str]:
        return [_heads_in_words(*(layer.shapes[0][1] for layer in layers(pair))) for pair in self.pairs]


def _heads_in_words(mine: int, theirs: int) -> str:
    return f"{mine} heads" if mine == theirs else f"mean of {mine} heads, mean of {theirs}"
