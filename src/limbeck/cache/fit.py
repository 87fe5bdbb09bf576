"""Which codec a budget of bytes per token buys, seen on a few rows of the teacher.

Shapes: N rows, K classes of a row that may be kept, V classes.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from limbeck.cache.bits import MOST, Ints, buckets_of
from limbeck.cache.codecs import Codec, Drawn, Full, PackedTopK, PlainTopK, top_k
from limbeck.core.errors import RecipeError
from limbeck.core.types import Dense, Dist, Sampled

BITS = (4, 5, 6, 7)
"""Widths of a log-probability that are tried."""
LEAST_TOP_K = 40
"""Bytes per token below which `auto` draws classes: the likeliest alone would leave out too much."""


@dataclass(frozen=True)
class Asked:
    """What a recipe asks of a codec; `core.recipe.Cache` says what the fields mean."""

    bytes_per_token: float | None = None
    type: str = "auto"
    k: int | None = None
    dtype: str = "float16"


class Pilot:
    """What is kept of a few rows, to choose by.

    Args:
        classes: V.
        prior: how often each class is a label, [V]; zeros where nothing is known.
    """

    def __init__(self, classes: int, prior: Ints | None = None):
        self.classes = classes
        self.prior = np.zeros(classes) if prior is None else prior
        self._logs: list[NDArray[np.float32]] = []
        self._ids: list[Ints] = []

    def add(self, logits_NV: Tensor) -> None:
        """Look at more rows."""
        logs_NK, ids_NK, _ = top_k(logits_NV, MOST)
        self._logs.append(logs_NK)
        self._ids.append(ids_NK)

    @property
    def logs(self) -> NDArray[np.float32]:
        """Log-probabilities of the likeliest, falling, [N, K]."""
        return np.concatenate(self._logs)

    @property
    def ids(self) -> Ints:
        """Their classes [N, K]."""
        return np.concatenate(self._ids)

    def order(self) -> NDArray[np.int32]:
        """Classes by how often they will be written: seen in the rows, or a label; the lower id first."""
        often = np.bincount(self.ids[self.logs > np.log(1e-3)], minlength=self.classes).astype(np.float64)
        often += self.prior * (len(self.logs) / max(1, self.prior.sum()))
        return np.argsort(-often, kind="stable").astype(np.int32)


def choose(asked: Asked, pilot: Pilot, beside: float, drawable: bool) -> Codec:
    """The codec that a budget buys.

    Args:
        asked: what the recipe says.
        pilot: rows to choose by.
        beside: bytes per token that go to the index and the like.
        drawable: whether the terms learn from drawn classes without bias.

    Raises:
        RecipeError: the budget is too small, or what is asked for does not fit.
    """
    kind = asked.type
    if kind == "auto":
        kind = _automatic(asked, pilot.classes, drawable)
    if kind == "full":
        return Full(pilot.classes, asked.dtype)
    if kind == "sampled" and not drawable:
        raise RecipeError(
            "a term cannot learn from drawn classes without bias",
            got="cache.type: sampled",
            allowed="terms linear in the teacher's probabilities at temperature 1, such as kl",
            fix="cache.type=top_k",
        )
    if kind == "top_k" and asked.k is not None:
        return PlainTopK(min(asked.k, pilot.classes), asked.dtype)
    budget = asked.bytes_per_token or 100.0
    left = budget - beside
    found = _drawn(pilot, left) if kind == "sampled" else _packed(pilot, left)
    if found is None:
        raise RecipeError(
            "so few bytes cannot hold a row",
            got=f"cache.bytes_per_token: {budget:g}, of which {beside:.1f} go to the index",
            fix="a larger cache.bytes_per_token",
        )
    return found


def _automatic(asked: Asked, classes: int, drawable: bool) -> str:
    budget = asked.bytes_per_token or 100.0
    if asked.k is None and classes * np.dtype(asked.dtype).itemsize <= budget:
        return "full"
    return "sampled" if asked.k is None and budget < LEAST_TOP_K and drawable else "top_k"


def _packed(pilot: Pilot, budget: float) -> PackedTopK | None:
    """Of every width of a code, the lowest bound that the budget pays; of these, the nearest to the teacher."""
    order = pilot.order()
    ranks = np.empty(len(order), dtype=np.int64)
    ranks[order] = np.arange(len(order))
    logs_NK = pilot.logs
    bucket_NK = buckets_of(ranks[pilot.ids])
    sums_NK, tops_NK = bucket_NK.cumsum(1), np.maximum.accumulate(bucket_NK, axis=1)
    found: list[tuple[float, PackedTopK]] = []
    for bits in BITS:

        def size(bound: float, bits: int = bits) -> float:
            counts_N = np.maximum((logs_NK >= bound).sum(1), 1)
            last = (np.arange(len(counts_N)), counts_N - 1)
            return 2 + float((counts_N * (1 + bits) + sums_NK[last] + tops_NK[last]).mean()) / 8

        low, high = -20.0, 0.0
        if size(high) > budget:
            continue
        for _ in range(20):
            middle = (low + high) / 2
            low, high = (low, middle) if size(middle) <= budget else (middle, high)
        made = _with_levels(logs_NK, order, round(high, 4), bits)
        found.append((_distance(logs_NK, made), made))
    return min(found, key=lambda pair: pair[0])[1] if found else None


def _with_levels(logs_NK: NDArray[np.float32], order: NDArray[np.int32], bound: float, bits: int) -> PackedTopK:
    """Levels that lie the denser, the more mass is there.

    At g(x) classes of log-probability x, steps of width h(x) cost sum p g h^2 / 24 in KL; under a number of levels
    this is least for 1 / h ~ (g p)^(1/3).
    """
    counts_N = np.maximum((logs_NK >= bound).sum(1), 1)
    kept = logs_NK[np.arange(logs_NK.shape[1]) < counts_N[:, None]].astype(np.float64)
    edges = np.linspace(min(bound, kept.min()), 0, 513)
    middles = (edges[1:] + edges[:-1]) / 2
    dense = (np.histogram(kept, edges)[0] * np.exp(middles)) ** (1 / 3)
    dense += 0.05 * dense.mean()
    share = np.concatenate([[0], np.cumsum(dense)]) / dense.sum()
    levels = np.interp((np.arange(2**bits) + 0.5) / 2**bits, share, edges)
    return PackedTopK(order=order, bound=bound, levels=tuple(float(x) for x in np.round(levels, 5)))


def _distance(logs_NK: NDArray[np.float32], codec: PackedTopK) -> float:
    """Total variation of what is read to the rows, the rest's mass taken as lost."""
    counts_N = np.maximum((logs_NK >= codec.bound).sum(1), 1)
    kept_NK = np.arange(logs_NK.shape[1]) < counts_N[:, None]
    levels = np.array(codec.levels)
    near_NK = levels[np.searchsorted((levels[1:] + levels[:-1]) / 2, logs_NK)]
    true_NK, read_NK = np.exp(logs_NK.astype(np.float64)) * kept_NK, np.exp(near_NK) * kept_NK
    read_NK *= true_NK.sum(1, keepdims=True) / read_NK.sum(1, keepdims=True)
    return float((np.abs(true_NK - read_NK).sum(1) + 1 - true_NK.sum(1)).mean()) / 2


def _drawn(pilot: Pilot, budget: float) -> Drawn | None:
    """As many draws as the budget pays, found by drawing."""
    order = pilot.order()
    logs_NK = torch.from_numpy(pilot.logs)
    generator = torch.Generator().manual_seed(0)
    uniform_ND = torch.rand(len(logs_NK), MOST, generator=generator)
    ids = torch.from_numpy(pilot.ids)
    low, high = 0, MOST + 1
    while high - low > 1:
        count = (low + high) // 2
        codec = Drawn(order=order, count=count)
        # Among the likeliest; the few draws from the rest would cost a little more.
        (places_ND,) = codec.reduce(logs_NK, uniform_ND[:, :count])
        drawn_ND = ids.gather(1, torch.from_numpy(places_ND)).numpy()
        data = codec.write((drawn_ND,), np.array([len(drawn_ND)]))
        low, high = (count, high) if len(data[0]) / len(drawn_ND) <= budget else (low, count)
    return Drawn(order=order, count=low) if low else None


def total_variation(logits_NV: Tensor, told: Dist) -> Tensor:
    """Of every row: half the sum of |p - q| over all classes, a tail spread evenly over the classes it stands for."""
    rows = [slice(at, at + 512) for at in range(0, len(logits_NV), 512)]
    parts = [replace(told, **{f.name: getattr(told, f.name)[part] for f in fields(told)}) for part in rows]
    return torch.cat([_total_variation(logits_NV[part], each) for part, each in zip(rows, parts, strict=True)])


def _total_variation(logits_NV: Tensor, told: Dist) -> Tensor:
    true_NV = torch.softmax(logits_NV.double(), 1).cpu()
    if isinstance(told, Dense):
        return (true_NV - torch.softmax(told.logits.double(), 1)).abs().sum(1) / 2
    ids_NK = told.ids.long()  # type: ignore[union-attr]
    named_NK = ids_NK >= 0
    if isinstance(told, Sampled):
        values_NK = told.counts.double() / told.counts.sum(1, keepdim=True)
        even_N1 = torch.zeros(len(ids_NK), 1, dtype=torch.double)
    else:
        values_NK = told.logprobs.double().exp()  # type: ignore[union-attr]
        rest_N = (true_NV.shape[1] - named_NK.sum(1)).clamp(min=1)
        even_N1 = (told.tail.double().exp() / rest_N)[:, None]  # type: ignore[union-attr]
    read_NV = torch.cat([even_N1.expand(-1, true_NV.shape[1]), torch.zeros_like(even_N1)], 1)
    places_NK = ids_NK.masked_fill(~named_NK, true_NV.shape[1])
    read_NV.scatter_(1, places_NK, values_NK.masked_fill(~named_NK, 0))
    return (true_NV - read_NV[:, :-1]).abs().sum(1) / 2


def tail_mass(told: Dist) -> float | None:
    """Mean mass that no class is named for; None where every class is known, or classes are drawn."""
    tail: Tensor | None = getattr(told, "tail", None)
    return None if tail is None else float(tail.double().exp().mean())
