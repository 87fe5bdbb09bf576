"""Queries, keys, values, and the summaries that are learned from them.

Shapes: B rows, T tokens, t new tokens, D hidden width, n segments, S tokens of a segment, H query heads,
G key heads, d width of a head, m summary vectors of a segment.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from limbeck.models.compact.cache import CompactCache, Step
from limbeck.models.compact.config import CompactConfig
from limbeck.models.compact.segments import Layout, Summaries, attention, segmented_attention


class RMSNorm(nn.Module):
    """w x / sqrt(mean(x^2) + eps), in float32, and given in the type of x.

    PyTorch's own warns of inputs in half precision, which autocast makes.

    Args:
        width: of x.
        eps: added to the mean square.

    Reference:
        Zhang and Sennrich, Root Mean Square Layer Normalization, 2019, arXiv:1910.07467.
    """

    def __init__(self, width: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, hidden_states: Tensor) -> Tensor:
        """[..., width] to [..., width]."""
        wide = hidden_states if hidden_states.dtype == torch.float64 else hidden_states.float()
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return (wide * self.weight).to(hidden_states.dtype)


class SummaryPool(nn.Module):
    """m vectors for a segment: learned queries look at its keys, and take a mean of its keys and of its values.

        a = softmax(query k / sqrt(d));  summary key = sum of a k,  summary value = sum of a v

    Args:
        tokens: m.
        heads: G; each key head has queries of its own.
        width: d.

    Reference:
        Lee et al., Set Transformer, 2018, arXiv:1810.00825 (pooling by attention with learned queries).
    """

    def __init__(self, tokens: int, heads: int, width: int):
        super().__init__()
        self.query = nn.Parameter(torch.empty(heads, tokens, width))

    def forward(self, keys_BnGSd: Tensor, values_BnGSd: Tensor, valid_BnS: Tensor | None) -> Summaries:
        """Summaries [B, n, G, m, d] of segments; a segment without a valid token has one without meaning."""
        keys, values = keys_BnGSd, values_BnGSd
        query = self.query.expand(*keys.shape[:2], -1, -1, -1).to(keys.dtype).flatten(1, 2)
        bias = None
        if valid_BnS is not None:  # a number, not minus infinity: a segment may be empty
            bias = torch.zeros_like(valid_BnS, dtype=keys.dtype).masked_fill(~valid_BnS, torch.finfo(keys.dtype).min)
            bias = bias[:, :, None, None].expand(-1, -1, keys.shape[2], query.shape[2], -1).flatten(1, 2)
        both = torch.cat([keys, values], -1).flatten(1, 2)
        pooled = F.scaled_dot_product_attention(query, keys.flatten(1, 2), both, attn_mask=bias)
        pooled = pooled.unflatten(1, keys.shape[1:3])
        return Summaries(*pooled.split(keys.shape[-1], -1))


class CompactAttention(nn.Module):
    """Segmented self-attention; `q_proj`, `k_proj`, `v_proj` and `o_proj` are plain Linears that taps can read.

    Args:
        config: of the model.
        layer_idx: number of the layer.
    """

    def __init__(self, config: CompactConfig, layer_idx: int):
        super().__init__()
        self.layer_idx = layer_idx
        self.num_heads, self.num_key_value_heads = config.num_attention_heads, config.key_heads
        self.dropout = config.attention_dropout
        width, bias = config.head_width, config.attention_bias
        self.q_proj = nn.Linear(config.hidden_size, self.num_heads * width, bias=bias)
        self.k_proj = nn.Linear(config.hidden_size, self.num_key_value_heads * width, bias=bias)
        self.v_proj = nn.Linear(config.hidden_size, self.num_key_value_heads * width, bias=bias)
        self.o_proj = nn.Linear(self.num_heads * width, config.hidden_size, bias=bias)
        self.q_norm = RMSNorm(width, config.norm_eps) if config.qk_norm else None
        self.k_norm = RMSNorm(width, config.norm_eps) if config.qk_norm else None
        has = config.segment_length and config.summary_tokens
        self.summary = SummaryPool(config.summary_tokens, self.num_key_value_heads, width) if has else None

    def forward(
        self,
        hidden_states: Tensor,
        near: Tensor,
        far: Tensor | None,
        layout: Layout | Step,
        past_key_values: CompactCache | None = None,
    ) -> Tensor:
        """Attention of [B, T, D].

        Args:
            hidden_states: [B, T, D].
            near: bias of near keys [H, S, K]; in a `Step` that of all keys [B, H, t, W + P m], masked.
            far: bias of summaries by distance in segments [H, 2n - 1], None where there are none.
            layout: of a whole batch; or a step that continues one, whose tokens are in `past_key_values`.
            past_key_values: where keys and values are kept for the tokens to come.
        """
        q = self.q_proj(hidden_states).unflatten(-1, (self.num_heads, -1))
        k = self.k_proj(hidden_states).unflatten(-1, (self.num_key_value_heads, -1))
        v = self.v_proj(hidden_states).unflatten(-1, (self.num_key_value_heads, -1))
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        if isinstance(layout, Step):
            assert past_key_values is not None
            mixed = self._continued(q, k, v, near, layout, past_key_values)
        else:
            mixed = self._whole(q, k, v, near, far, layout, past_key_values)
        return self.o_proj(mixed.flatten(2))

    def _whole(
        self,
        q_BTHd: Tensor,
        k_BTGd: Tensor,
        v_BTGd: Tensor,
        near: Tensor,
        far: Tensor | None,
        layout: Layout,
        past: CompactCache | None,
    ) -> Tensor:
        q, k, v = (layout.pack(x) for x in (q_BTHd, k_BTGd, v_BTGd))
        summaries = None
        ended = past is not None and layout.length >= past.segment  # seen by the tokens to come, if not by these
        if self.summary is not None and (layout.count > 1 or ended):
            valid = None if layout.causal else layout.valid_BnS(k.device)
            summaries = self.summary(k, v, valid)
        if past is not None:
            past.fill(self.layer_idx, k, v, summaries)
        dropout = self.dropout if self.training else 0.0
        mixed = layout.unpack(segmented_attention(q, k, v, summaries, near, far, layout, dropout))
        if self.training and self.summary is not None and summaries is None:
            # a short batch has no use for the summaries, but parallel training waits for all parameters
            mixed = mixed + 0.0 * self.summary.query.sum()
        return mixed

    def _continued(
        self, q_BtHd: Tensor, k_BtGd: Tensor, v_BtGd: Tensor, bias: Tensor, step: Step, past: CompactCache
    ) -> Tensor:
        k, v = past.update(k_BtGd.transpose(1, 2), v_BtGd.transpose(1, 2), self.layer_idx, step, self.summary)
        dropout = self.dropout if self.training else 0.0
        return attention(q_BtHd.transpose(1, 2), k[:, None], v[:, None], bias, dropout)[:, 0].transpose(1, 2)
