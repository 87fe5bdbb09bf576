"""Attention a segment at a time: near keys one by one, far segments as a few summary vectors.

Memory is linear in the number of tokens: scores are made for a block of queries, and made again in the backward pass.

Shapes: B rows, T tokens, n segments, S tokens of a segment, H query heads, G key heads, d width of a head,
m summary vectors of a segment, g segments of a block, K near keys of a segment, R = 2n - 1 distances of segments.
A leading 1 stands for B where all rows are alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

BLOCK = 512
"""Queries whose scores are held at a time, over all rows; never less than one segment of each row."""


@dataclass(frozen=True)
class Layout:
    """Where the tokens of a batch stand: the valid ones first, cut into segments."""

    length: int
    """T, tokens of a row with its padding."""
    segment: int
    """S."""
    count: int
    """n."""
    causal: bool
    lengths_B: Tensor | None
    """Valid tokens of each row; None: all T."""
    order_BT: Tensor | None
    """Which token comes first, second, ...; None: as they are."""

    @classmethod
    def of(cls, length: int, segment: int, causal: bool, mask_BT: Tensor | None) -> Layout:
        """The layout of rows with a padding mask.

        Padding may stand anywhere: positions count the valid tokens, so that neither side changes a result.
        """
        size = min(segment, length) if segment else length
        lengths = order = None
        if mask_BT is not None:
            mask = mask_BT.bool()
            lengths = mask.sum(1)
            fixed = torch.compiler.is_compiling() or torch.jit.is_tracing()  # neither can look at the mask's values
            if fixed or bool((mask[:, 1:] > mask[:, :-1]).any()):
                order = torch.argsort(mask.int(), dim=1, descending=True, stable=True)
        return cls(length, size, -(-length // max(size, 1)), causal, lengths, order)

    def pack(self, x_BThd: Tensor) -> Tensor:
        """[B, T, heads, d] to segments [B, n, heads, S, d]."""
        if self.order_BT is not None:
            x_BThd = x_BThd.gather(1, self.order_BT[:, :, None, None].expand_as(x_BThd))
        if extra := self.count * self.segment - self.length:
            x_BThd = F.pad(x_BThd, (0, 0, 0, 0, 0, extra))
        return x_BThd.unflatten(1, (self.count, self.segment)).transpose(2, 3)

    def unpack(self, x_BnhSd: Tensor) -> Tensor:
        """Segments [B, n, heads, S, d] to [B, T, heads, d]."""
        x_BThd = x_BnhSd.transpose(2, 3).flatten(1, 2)[:, : self.length]
        if self.order_BT is not None:
            back = self.order_BT.argsort(1)[:, :, None, None]
            x_BThd = x_BThd.gather(1, back.expand_as(x_BThd))
        return x_BThd

    @property
    def offsets(self) -> tuple[int, ...]:
        """Segments whose tokens a query sees one by one, counted from its own."""
        if self.count == 1:
            return (0,)
        return (-1, 0) if self.causal else (-1, 0, 1)

    def distances_SK(self, device: torch.device) -> Tensor:
        """Position of the query less position of the key, for the near keys of any segment."""
        steps = torch.arange(self.segment, device=device)
        keys = torch.arange(self.offsets[0] * self.segment, (self.offsets[-1] + 1) * self.segment, device=device)
        return steps[:, None] - keys[None, :]

    def valid_BnS(self, device: torch.device) -> Tensor:
        """Which places hold a token; for a decoder what is behind a row's end is never looked at, so it need not."""
        places = torch.arange(self.count * self.segment, device=device)
        if self.causal or self.lengths_B is None:
            valid = (places < self.length)[None]
        else:
            valid = places < self.lengths_B[:, None]
        return valid.unflatten(1, (self.count, self.segment))


@dataclass(frozen=True)
class Summaries:
    """A few vectors for every segment, in the place of its keys and values."""

    keys_BnGmd: Tensor
    values_BnGmd: Tensor


def segmented_attention(
    q_BnHSd: Tensor,
    k_BnGSd: Tensor,
    v_BnGSd: Tensor,
    summaries: Summaries | None,
    near_HSK: Tensor,
    far_HR: Tensor | None,
    layout: Layout,
    dropout: float = 0.0,
) -> Tensor:
    """softmax(q k / sqrt(d) + bias) v over the near tokens and the summaries of the far segments.

    A query of segment i sees the tokens of segments i - 1 and i (an encoder's of i + 1, too), and the summaries of
    all segments before i (an encoder's of all but i). In a decoder no key is later than the query.

    Args:
        q_BnHSd: queries, as `Layout.pack` gives them.
        k_BnGSd: keys; G divides H, neighbouring heads share one.
        v_BnGSd: values.
        summaries: keys and values of whole segments; None: there are none to be seen.
        near_HSK: bias of the near keys by distance, see `Layout.distances_SK`.
        far_HR: bias of a summary by distance in segments, from -(n - 1) to n - 1.
        layout: of the batch.
        dropout: share of the attention that is left out.

    Returns:
        [B, n, H, S, d]; places without a token hold finite numbers without meaning.

    Reference:
        Dai et al., Transformer-XL, 2019, arXiv:1901.02860 (the segment before); Rae et al., Compressive
        Transformers, 2019, arXiv:1911.05507 (older ones compressed).
    """
    rows, count, _, size, _ = q_BnHSd.shape
    some = max(1, BLOCK // max(rows * size, 1))
    q_n, k_n, v_n = (x.unbind(1) for x in (q_BnHSd, k_BnGSd, v_BnGSd))
    again = some < count and torch.is_grad_enabled() and q_BnHSd.requires_grad
    mixed = []
    for low in range(0, count, some):
        part = slice(low, min(low + some, count))
        block = partial(_block, part, q_n, k_n, v_n, summaries, near_HSK, far_HR, layout, dropout)
        made = checkpoint(block, use_reentrant=False, preserve_rng_state=dropout > 0) if again else block()
        mixed.append(made)
    return mixed[0] if len(mixed) == 1 else torch.cat(mixed, 1)


def _block(
    part: slice,
    q_n: Sequence[Tensor],
    k_n: Sequence[Tensor],
    v_n: Sequence[Tensor],
    summaries: Summaries | None,
    near_HSK: Tensor,
    far_HR: Tensor | None,
    layout: Layout,
    dropout: float,
) -> Tensor:
    """Attention of the queries of some segments: [B, g, H, S, d]."""
    low, high = part.start, part.stop
    q = torch.stack(list(q_n[part]), 1)
    k, v = (_windows(x_n, low, high, layout.offsets, dim=3) for x_n in (k_n, v_n))
    distances = layout.distances_SK(q.device)
    valid_BnS = layout.valid_BnS(q.device)
    visible = _windows(valid_BnS.unbind(1), low, high, layout.offsets, dim=2)[:, :, None, None]  # [B, g, 1, 1, K]
    if layout.causal:
        visible = visible & (distances >= 0)
    bias = near_HSK[None, None]
    if summaries is not None and far_HR is not None and (reach := high - 1 if layout.causal else layout.count) > 0:
        far_k, far_v = (
            x[:, :reach].transpose(1, 2).flatten(2, 3)[:, None].expand(-1, high - low, -1, -1, -1)
            for x in (summaries.keys_BnGmd, summaries.values_BnGmd)
        )
        k, v = torch.cat([k, far_k], 3), torch.cat([v, far_v], 3)
        apart = torch.arange(low, high, device=q.device)[:, None] - torch.arange(reach, device=q.device)
        seen = valid_BnS[:, None, :reach, 0] & ((apart > 0) if layout.causal else (apart != 0))  # [B, g, n]
        size, times = near_HSK.shape[1], summaries.keys_BnGmd.shape[3]
        seen = seen.repeat_interleave(times, 2)[:, :, None, None]
        visible = torch.cat([x.expand(-1, -1, -1, size, -1) for x in (visible, seen)], 4)
        far = far_HR[:, apart + layout.count - 1].transpose(0, 1).repeat_interleave(times, 2)  # [g, H, n m]
        bias = torch.cat(
            [bias.expand(1, high - low, -1, -1, -1), far[None, :, :, None].expand(-1, -1, -1, size, -1)], 4
        )
    bias = torch.where(visible, bias.to(q.dtype), torch.finfo(q.dtype).min)
    return attention(q.flatten(1, 2), k, v, bias.flatten(1, 2), dropout)


def _windows(x_n: Sequence[Tensor], low: int, high: int, offsets: Sequence[int], dim: int) -> Tensor:
    """What the queries of each segment see, side by side: [B, g, ..., K, ...]; nothing stands outside the text."""
    nothing = torch.zeros_like(x_n[0])
    columns = [
        torch.stack([x_n[i + o] if 0 <= i + o < len(x_n) else nothing for i in range(low, high)], 1) for o in offsets
    ]
    return columns[0] if len(columns) == 1 else torch.cat(columns, dim)


def attention(q_BhSd: Tensor, k_BgGKd: Tensor, v_BgGKd: Tensor, bias_BhSK: Tensor, dropout: float) -> Tensor:
    """PyTorch's attention with a bias, for g segments of G key heads each: [B, g, H, S, d]."""
    groups, heads = k_BgGKd.shape[1:3]
    times = q_BhSd.shape[1] // (groups * heads)
    k, v = (x.repeat_interleave(times, 2).flatten(1, 2) if times > 1 else x.flatten(1, 2) for x in (k_BgGKd, v_BgGKd))
    mixed = F.scaled_dot_product_attention(q_BhSd, k, v, attn_mask=bias_BhSK, dropout_p=dropout)
    return mixed.unflatten(1, (groups, -1))
