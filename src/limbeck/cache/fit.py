"""Which codec a budget of bytes per token buys, seen on a few rows of the teacher.

Shapes: N rows, K classes of a row that may be kept, V classes.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, fields, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from limbeck.cache.bits import MOST, Ints, buckets_of
from limbeck.cache.codecs import Codec, Drawn, Full, PackedTopK, PlainTopK, ranks_of, top_k
from limbeck.core.errors import RecipeError
from limbeck.core.types import Dense, Dist, Sampled

BITS = (4, 5, 6, 7)
"""Widths of a log-probability that are tried."""
LEAST_TOP_K = 40
"""Bytes per token below which `auto` draws classes: the likeliest alone would leave out too much."""
SPENT = 0.95
"""Share of the budget that a bound should spend; one that spends less jumps over classes of one probability."""


@dataclass(frozen=True)
class Asked:
    """What a recipe asks of a codec; `core.recipe.Cache` says what the fields mean."""

    bytes_per_token: float | None = None
    type: str = "auto"
    k: int | None = None
    dtype: str = "float16"

    @property
    def budget(self) -> float:
        """Bytes per token, also where the recipe gives none."""
        return 100.0 if self.bytes_per_token is None else self.bytes_per_token

    @property
    def may_draw(self) -> bool:
        """Whether classes may be drawn, if the terms allow it."""
        return self.type == "sampled" or (self.type == "auto" and self.k is None and self.budget < LEAST_TOP_K)


class Pilot:
    """What is kept of a few rows, to choose by.

    What a class costs hangs on its rank, and ranks are made from the rows that are seen here. So each half of them is
    measured under the ranks that the other half gives: a recording's rows are new ones too.

    Args:
        classes: V.
        prior: how often each class is a label, [V]; zeros where nothing is known.
        draws: whether classes are drawn too.
    """

    def __init__(self, classes: int, prior: Ints | None = None, draws: bool = True):
        self.classes, self.draws = classes, draws
        self.prior = np.zeros(classes) if prior is None else prior
        self._logs: list[NDArray[np.float32]] = []
        self._ids: list[Ints] = []
        self._drawn: list[Ints] = []
        self._generator = torch.Generator().manual_seed(0)

    def add(self, logits_NV: Tensor) -> None:
        """Look at more rows."""
        logs_NK, ids_NK, _ = top_k(logits_NV, MOST)
        self._logs.append(logs_NK)
        self._ids.append(ids_NK)
        if self.draws:
            uniform_ND = torch.rand(len(logits_NV), MOST, generator=self._generator, dtype=torch.double)
            (drawn_ND,) = Drawn(order=np.arange(self.classes, dtype=np.int32), count=MOST).reduce(logits_NV, uniform_ND)
            self._drawn.append(drawn_ND)

    @property
    def logs(self) -> NDArray[np.float32]:
        """Log-probabilities of the likeliest, falling, [N, K]."""
        return np.concatenate(self._logs)

    @property
    def ids(self) -> Ints:
        """Their classes [N, K]."""
        return np.concatenate(self._ids)

    @property
    def drawn(self) -> Ints:
        """Classes drawn from each row, [N, 255]."""
        return np.concatenate(self._drawn)

    def order(self, rows: slice = slice(None)) -> NDArray[np.int32]:
        """Classes by how often they will be written: seen in the rows, or a label; the lower id first."""
        logs_NK = self.logs[rows]
        often = np.bincount(self.ids[rows][logs_NK > np.log(1e-3)], minlength=self.classes).astype(np.float64)
        often += self.prior * (len(logs_NK) / max(1, self.prior.sum()))
        return np.argsort(-often, kind="stable").astype(np.int32)

    def crossed(self) -> list[tuple[slice, NDArray[np.int32]]]:
        """Each half of the rows, and the order that the other half gives."""
        middle = len(self.logs) // 2
        first, second = slice(0, middle), slice(middle, None)
        return [(first, self.order(second)), (second, self.order(first))]


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
        kind = _automatic(asked, pilot.classes, beside, drawable)
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
    fitted, least = (_drawn if kind == "sampled" else _packed)(pilot, asked.budget - beside)
    if fitted is None:
        raise RecipeError(
            "so few bytes cannot hold a row",
            got=f"cache.bytes_per_token: {asked.budget:g}, of which {beside:.1f} go to the index",
            allowed=f"{np.ceil(10 * (least + beside)) / 10:.1f} or more",
            fix="a larger cache.bytes_per_token",
        )
    return fitted


def _automatic(asked: Asked, classes: int, beside: float, drawable: bool) -> str:
    if asked.k is None and classes * np.dtype(asked.dtype).itemsize + beside <= asked.budget:
        return "full"
    return "sampled" if asked.may_draw and drawable else "top_k"


def _packed(pilot: Pilot, budget: float) -> tuple[PackedTopK | None, float]:
    """Of every width of a code, the lowest bound that the budget pays; of these, the nearest to the teacher.

    Where many classes share one probability, a bound just above it leaves most of the budget, and one just below it
    takes too much. There a number of classes that no row may exceed is the other way to spend it.

    Returns:
        The codec, None where nothing fits; and the least that a row takes.
    """
    logs_NK, order = pilot.logs, pilot.order()
    bucket_NK = np.concatenate([buckets_of(ranks_of(by)[pilot.ids[part]]) for part, by in pilot.crossed()])
    sums_NK, tops_NK = bucket_NK.cumsum(1), np.maximum.accumulate(bucket_NK, axis=1)
    found: list[tuple[float, PackedTopK]] = []

    def size(bound: float, bits: int, most: int = MOST) -> float:
        counts_N = _counts(logs_NK, bound, most)
        last = (np.arange(len(counts_N)), counts_N - 1)
        return 2 + float((counts_N * (1 + bits) + sums_NK[last] + tops_NK[last]).mean()) / 8

    for bits in BITS:
        low, high = -20.0, 0.0
        if size(high, bits) > budget:
            continue
        for _ in range(20):
            middle = (low + high) / 2
            low, high = (low, middle) if size(middle, bits) <= budget else (middle, high)
        # Rounded to the side that keeps the budget, and far enough for classes that lie on the bound but for rounding.
        bounds = [(np.ceil(high * 1e4 + 1) / 1e4, MOST)]
        if size(high, bits) < SPENT * budget and budget < size(low, bits):
            below = np.floor(low * 1e4 - 1) / 1e4
            fits = bisect_right(range(1, MOST), budget, key=partial(size, below, bits))
            bounds.append((below, fits))
        for bound, most in bounds:
            made = _with_levels(logs_NK, order, float(bound), bits, most)
            found.append((_distance(logs_NK, made), made))
    return (min(found, key=lambda pair: pair[0])[1] if found else None), size(0.0, BITS[0])


def _counts(logs_NK: NDArray[np.float32], bound: float, most: int) -> Ints:
    """Classes that are kept of each row."""
    return (logs_NK >= bound).sum(1).clip(1, most)


def _with_levels(
    logs_NK: NDArray[np.float32], order: NDArray[np.int32], bound: float, bits: int, most: int
) -> PackedTopK:
    """Levels that lie the denser, the more mass is there.

    At g(x) classes of log-probability x, steps of width h(x) cost sum p g h^2 / 24 in KL; under a number of levels
    this is least for 1 / h ~ (g p)^(1/3).
    """
    counts_N = _counts(logs_NK, bound, most)
    kept = logs_NK[np.arange(logs_NK.shape[1]) < counts_N[:, None]].astype(np.float64)
    edges = np.linspace(min(bound, kept.min()), 0, 513)
    middles = (edges[1:] + edges[:-1]) / 2
    dense = (np.histogram(kept, edges)[0] * np.exp(middles)) ** (1 / 3)
    dense += 0.05 * dense.mean()
    share = np.concatenate([[0], np.cumsum(dense)]) / dense.sum()
    levels = np.interp((np.arange(2**bits) + 0.5) / 2**bits, share, edges)
    return PackedTopK(order=order, bound=bound, levels=tuple(float(x) for x in np.round(levels, 5)), most=most)


def _distance(logs_NK: NDArray[np.float32], codec: PackedTopK) -> float:
    """Total variation of what is read to the rows, the rest's mass taken as lost."""
    counts_N = _counts(logs_NK, codec.bound, codec.most)
    kept_NK = np.arange(logs_NK.shape[1]) < counts_N[:, None]
    levels = np.array(codec.levels)
    near_NK = levels[np.searchsorted((levels[1:] + levels[:-1]) / 2, logs_NK)]
    true_NK, read_NK = np.exp(logs_NK.astype(np.float64)) * kept_NK, np.exp(near_NK) * kept_NK
    read_NK *= true_NK.sum(1, keepdims=True) / read_NK.sum(1, keepdims=True)
    return float((np.abs(true_NK - read_NK).sum(1) + 1 - true_NK.sum(1)).mean()) / 2


def _drawn(pilot: Pilot, budget: float) -> tuple[Drawn | None, float]:
    """As many draws as the budget pays, found by drawing.

    Returns:
        The codec, None where nothing fits; and the least that a row takes.
    """
    drawn_ND, crossed = pilot.drawn, pilot.crossed()

    def size(count: int) -> float:
        told = [(Drawn(order=by, count=count), drawn_ND[part, :count]) for part, by in crossed]
        return sum(len(codec.write((rows,), np.array([len(rows)]))[0]) for codec, rows in told) / len(drawn_ND)

    low, high = 0, MOST + 1
    while high - low > 1:
        count = (low + high) // 2
        low, high = (count, high) if size(count) <= budget else (low, count)
    return (Drawn(order=pilot.order(), count=low) if low else None), size(1)


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
