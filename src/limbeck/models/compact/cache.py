"""What a decoder keeps while it generates: two segments of keys and values, and summaries of what came before.

Shapes: B rows, t new tokens, W tokens kept, P places for segments, S tokens of a segment, H query heads,
G key heads, d width of a head, m summary vectors of a segment.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.cache_utils import Cache, CacheLayerMixin

from limbeck.core.errors import ModelError
from limbeck.models.compact.segments import Layout, Summaries

Pool = Callable[[Tensor, Tensor, Tensor], Summaries]
"""Keys and values [B, 1, G, W, d] and the places [B, 1, W] to be summed up, to one summary."""


@dataclass(frozen=True)
class Step:
    """New tokens and the tokens that are kept, as all layers see them."""

    queries_Bt: Tensor
    """Positions of the new tokens in their rows."""
    positions_BW: Tensor
    """Positions of the kept tokens and the new ones; -1 is padding."""
    complete: tuple[tuple[int, Tensor], ...]
    """Segments that end with these tokens: number, and [B] the rows in which it does."""
    places: int
    """P: segments that have ended in some row."""
    segment: int
    """S; 0: there are none."""


class CompactCacheLayer(CacheLayerMixin):
    """One layer's keys and values of the last two segments, and the summaries of all that have ended."""

    is_sliding = False

    def __init__(self, window: int | None):
        super().__init__()
        self.window = window
        self.summaries: tuple[Tensor, Tensor] | None = None

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Take the first keys and values."""
        self.keys, self.values = self._kept(key_states), self._kept(value_states)
        self.is_initialized = True

    def _kept(self, x_BGWd: Tensor) -> Tensor:
        return x_BGWd if self.window is None else x_BGWd[:, :, -self.window :]

    def update(self, key_states: Tensor, value_states: Tensor, *args, **kwargs) -> tuple[Tensor, Tensor]:
        """Add new tokens [B, G, t, d]; give all that they may look at, the summaries [B, G, P m, d] last.

        Args:
            key_states: keys of the new tokens.
            value_states: values of the new tokens.
            args: the `Step`, and the layer's `Pool` (None where there are no summaries).
            kwargs: none.
        """
        step, pool = args
        assert self.keys is not None
        assert self.values is not None
        keys = torch.cat([self.keys, key_states], 2)
        values = torch.cat([self.values, value_states], 2)
        if pool is not None:
            self._sum_up(keys, values, step, pool)
        self.keys, self.values = self._kept(keys), self._kept(values)
        if self.summaries is None:
            return keys, values
        flat = [x.transpose(1, 2).flatten(2, 3) for x in self.summaries]
        return torch.cat([keys, flat[0]], 2), torch.cat([values, flat[1]], 2)

    def _sum_up(self, keys_BGWd: Tensor, values_BGWd: Tensor, step: Step, pool: Pool) -> None:
        for number, rows_B in step.complete:
            inside = torch.div(step.positions_BW, step.segment, rounding_mode="floor") == number
            new = pool(keys_BGWd[:, None], values_BGWd[:, None], inside[:, None])
            self.put(new, number, rows_B)

    def put(self, new: Summaries, number: int, rows_B: Tensor) -> None:
        """Set the summaries [B, k, G, m, d] of the k segments from `number` on, in some of the rows."""
        states = (new.keys_BnGmd, new.values_BnGmd)
        old = self.summaries or tuple(x[:, :0] for x in states)
        more = number + states[0].shape[1] - old[0].shape[1]
        grown = [F.pad(x, (0, 0, 0, 0, 0, 0, 0, max(more, 0))) for x in old]
        where = rows_B[:, None, None, None, None]
        for x, state in zip(grown, states, strict=True):
            part = slice(number, number + state.shape[1])
            x[:, part] = torch.where(where, state, x[:, part])
        self.summaries = (grown[0], grown[1])

    def each(self, change: Callable[[Tensor], Tensor]) -> None:
        """Change all that is kept, along the rows."""
        if self.keys is not None and self.values is not None:
            self.keys, self.values = change(self.keys), change(self.values)
        if self.summaries is not None:
            self.summaries = (change(self.summaries[0]), change(self.summaries[1]))

    def get_seq_length(self) -> int:
        """Tokens that are kept."""
        return 0 if self.keys is None else self.keys.shape[2]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Number of kept and new tokens, and 0."""
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        """No bound: -1."""
        return -1


class CompactCache(Cache):
    """Keys, values and summaries of all layers; rows may have padding anywhere, and different lengths.

    Args:
        layers: number of layers.
        segment: S; 0 keeps everything.
    """

    def __init__(self, layers: int, segment: int):
        self.segment = segment
        self.window = 2 * segment or None
        super().__init__(layers=[CompactCacheLayer(self.window) for _ in range(layers)])
        self.seen = self.places = 0
        self.positions_BW: Tensor | None = None

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens that were given, with padding."""
        return self.seen

    def begin(self, layout: Layout, rows: int, device: torch.device) -> None:
        """The first tokens, which attention sees as a `Layout`."""
        self.seen = layout.length
        self.places = layout.length // self.segment if self.segment else 0
        lengths = layout.lengths_B if layout.lengths_B is not None else torch.full((rows,), layout.length)
        kept = layout.length if self.window is None else min(layout.length, self.window)
        places = lengths.to(device)[:, None] - kept + torch.arange(kept, device=device)
        self.positions_BW = places.clamp(min=-1)

    def fill(self, index: int, keys_BnGSd: Tensor, values_BnGSd: Tensor, summaries: Summaries | None) -> None:
        """A layer's packed keys and values of the first tokens; the last ones are kept, ends aligned."""
        assert self.positions_BW is not None
        layer = self._own(index)
        rows, _, heads, _, width = keys_BnGSd.shape
        places = self.positions_BW.clamp(min=0)[:, None, :, None].expand(rows, heads, -1, width)
        layer.lazy_initialization(
            *(x.transpose(1, 2).flatten(2, 3).gather(2, places) for x in (keys_BnGSd, values_BnGSd))
        )
        if summaries is not None:  # of a segment that has not ended in a row: not seen there, and set again at its end
            ended = Summaries(*(x[:, : self.places] for x in (summaries.keys_BnGmd, summaries.values_BnGmd)))
            layer.put(ended, 0, torch.ones(rows, dtype=torch.bool, device=places.device))

    def advance(self, length: int, mask: Tensor | None) -> Step:
        """Positions of new tokens.

        Raises:
            ModelError: there is padding among them; only the first tokens may have it.
        """
        assert self.positions_BW is not None
        if mask is not None and length > 1 and not bool(mask[:, -length:].all()):
            raise ModelError("padding among tokens that continue a text", fix="left padding in front of the first")
        old = self.positions_BW
        begun = old[:, -1:] + 1
        queries = begun + torch.arange(length, device=old.device)
        positions = torch.cat([old, queries], 1)
        self.seen += length
        self.positions_BW = positions if self.window is None else positions[:, -self.window :]
        if not self.segment:
            return Step(queries, positions, (), 0, 0)
        before, after = begun[:, 0] // self.segment, (queries[:, -1] + 1) // self.segment
        least, most = torch.stack([before.min(), after.max()]).tolist()
        complete = tuple((i, (before <= i) & (i < after)) for i in range(least, most))
        self.places = max(self.places, most)
        complete = tuple((i, rows) for i, rows in complete if bool(rows.any()))
        return Step(queries, positions, complete, self.places, self.segment)

    def _own(self, index: int) -> CompactCacheLayer:
        layer = self.layers[index]
        assert isinstance(layer, CompactCacheLayer)
        return layer

    def _each(self, change: Callable[[Tensor], Tensor]) -> None:
        if self.positions_BW is not None:
            self.positions_BW = change(self.positions_BW)
        for index in range(len(self.layers)):
            self._own(index).each(change)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Rows in another order."""
        self._each(lambda x: x.index_select(0, beam_idx.to(x.device)))

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Every row several times."""
        self._each(lambda x: x.repeat_interleave(repeats, 0))

    def batch_select_indices(self, indices: Tensor) -> None:
        """Some of the rows."""
        self._each(lambda x: x[indices])

    def reset(self) -> None:
        """Forget everything."""
        self.layers = [CompactCacheLayer(self.window) for _ in self.layers]
        self.seen = self.places = 0
        self.positions_BW = None
