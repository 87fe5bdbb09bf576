"""Codecs: what is kept of a distribution, and how many bytes that takes.

    top_k     the likeliest classes with log-probabilities and the rest's mass: exact with a fixed K, or packed, with
              as many classes in each row as reach a probability
    sampled   classes drawn from the teacher, with counts: unbiased however few bytes
    full      all logits

A codec reduces rows of logits, writes the rows of each sample as bytes, and reads many samples at once. All hold the
teacher at T = 1. A codec's fields are JSON values; the manifest keeps them, and `codec_from` makes it again.

Shapes: S samples, N rows, K classes that a row names, E pairs of all rows, V classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from limbeck.cache.bits import MOST, Ints, pack, unpack
from limbeck.core.errors import ArtifactError
from limbeck.core.types import Dense, Dist, Sampled, TopK

Reduced = tuple[NDArray[Any], ...]
"""What is kept of rows, before it is bytes: arrays whose first dimension is N."""
Blobs = Sequence[bytes | memoryview]
TAIL_STEP = 16 / 254
"""Step of a packed tail's logarithm: 255 codes from 1 to 1e-7, and one for nothing."""


@dataclass(frozen=True)
class Codec(ABC):
    """How distributions are kept."""

    type: ClassVar[str]
    draws: ClassVar[int] = 0
    """Random numbers that a row takes."""

    @property
    def config(self) -> dict[str, Any]:
        """All that reading takes, as JSON values."""
        return {"type": self.type, **asdict(self)}

    @abstractmethod
    def reduce(self, logits_NV: Tensor, uniform_ND: Tensor | None = None) -> Reduced:
        """What is kept of rows of logits in float32; `uniform_ND` decides draws."""

    @abstractmethod
    def write(self, rows: Reduced, rows_S: Ints) -> list[bytes]:
        """The bytes of each sample, from the rows of all."""

    @abstractmethod
    def read(self, samples: Blobs, rows_S: Ints, where: str = "a recording") -> Dist:
        """The rows of all samples, [N, ...].

        Raises:
            ArtifactError: the bytes are not what the index says.
        """


@dataclass(frozen=True)
class Full(Codec):
    """All logits.

    Attributes:
        classes: V.
        dtype: float16 or float32; float16 keeps logits relative to the row's largest.
    """

    classes: int
    dtype: str = "float16"
    type: ClassVar[str] = "full"

    def reduce(self, logits_NV: Tensor, uniform_ND: Tensor | None = None) -> Reduced:
        if self.dtype == "float16":
            logits_NV = (logits_NV - logits_NV.amax(1, keepdim=True)).clamp(min=-6e4)
        return (logits_NV.cpu().numpy().astype(self.dtype),)

    def write(self, rows: Reduced, rows_S: Ints) -> list[bytes]:
        return _cut(rows[0].astype(np.dtype(self.dtype).newbyteorder("<")), rows_S)

    def read(self, samples: Blobs, rows_S: Ints, where: str = "a recording") -> Dist:
        values = _rows(samples, rows_S, self.classes, self.dtype, where)
        return Dense(torch.from_numpy(values.astype(np.float32)))


@dataclass(frozen=True)
class PlainTopK(Codec):
    """The K likeliest classes of every row, log-probabilities in floating point.

    Attributes:
        k: classes of a row.
        dtype: of log-probabilities and tail.
    """

    k: int
    dtype: str = "float16"
    type: ClassVar[str] = "top_k"

    def reduce(self, logits_NV: Tensor, uniform_ND: Tensor | None = None) -> Reduced:
        logs_NK, ids_NK, tail_N = top_k(logits_NV, self.k)
        return ids_NK, logs_NK, tail_N

    def write(self, rows: Reduced, rows_S: Ints) -> list[bytes]:
        ids_NK, logs_NK, tail_N = rows
        logs = np.concatenate([logs_NK, tail_N[:, None]], 1).astype(np.dtype(self.dtype).newbyteorder("<"))
        parts = zip(_cut(ids_NK.astype("<u4"), rows_S), _cut(logs, rows_S), strict=True)
        return [ids + values for ids, values in parts]

    def read(self, samples: Blobs, rows_S: Ints, where: str = "a recording") -> Dist:
        ends = [4 * self.k * rows for rows in rows_S.tolist()]
        ids = _rows([data[:end] for data, end in zip(samples, ends, strict=True)], rows_S, self.k, "uint32", where)
        rest = [data[end:] for data, end in zip(samples, ends, strict=True)]
        logs = torch.from_numpy(_rows(rest, rows_S, self.k + 1, self.dtype, where).astype(np.float32))
        if self.dtype == "float16":  # rounded one by one; together they are a distribution again
            logs = torch.log_softmax(logs, 1)
        return TopK(torch.from_numpy(ids.astype(np.int64)), logs[:, :-1], logs[:, -1])


@dataclass(frozen=True)
class Ranked(Codec):
    """Base of codecs that write classes by their rank.

    Attributes:
        order: the class of each rank, common ones first; left out of `config`, it is a file of its own.
    """

    order: NDArray[np.int32]

    @property
    def config(self) -> dict[str, Any]:
        """All but the order."""
        told = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "order"}
        return {"type": self.type, **told}

    @cached_property
    def ranks(self) -> Ints:
        """The rank of each class."""
        return ranks_of(self.order)


@dataclass(frozen=True)
class PackedTopK(Ranked):
    """All classes that reach a probability, at least one and at most 255; log-probabilities in 2^bits levels.

    A class of probability p lowers a row's total variation by about p and takes the same bytes in any row: so a bound
    on p, the same everywhere, spends the bytes of all rows best. What is read is brought to a sum of one.

    Attributes:
        bound: log of the least probability that is kept.
        levels: log-probabilities by code, rising.
        most: classes that a row may have.
    """

    bound: float
    levels: tuple[float, ...]
    most: int = MOST
    type: ClassVar[str] = "packed_top_k"

    @property
    def bits(self) -> int:
        """Width of a code."""
        return (len(self.levels) - 1).bit_length()

    def reduce(self, logits_NV: Tensor, uniform_ND: Tensor | None = None) -> Reduced:
        # No more than e^-bound classes can reach the bound. Where equals are cut off, which ones hangs on how many are
        # looked at: as many as when the codec was chosen.
        few = MOST if self.most < MOST else max(1, int(np.exp(-self.bound)) + 1)
        logs_NK, ids_NK, tail_N = top_k(logits_NV, min(few, MOST))
        counts_N = (logs_NK >= self.bound).sum(1).clip(1, self.most)
        left_NK = np.arange(logs_NK.shape[1]) >= counts_N[:, None]
        rest_N = np.exp(tail_N.astype(np.float64)) + (np.exp(logs_NK, dtype=np.float64) * left_NK).sum(1)
        return ids_NK, logs_NK, counts_N, rest_N

    def write(self, rows: Reduced, rows_S: Ints) -> list[bytes]:
        ids_NK, logs_NK, counts_N, rest_N = rows
        ranks_NK = np.where(np.arange(ids_NK.shape[1]) < counts_N[:, None], self.ranks[ids_NK], len(self.order))
        places = ranks_NK.argsort(1, kind="stable")
        kept_NK = np.arange(ids_NK.shape[1]) < counts_N[:, None]
        levels = np.array(self.levels)
        codes_NK = np.searchsorted((levels[1:] + levels[:-1]) / 2, np.take_along_axis(logs_NK, places, 1))
        ranks_E, codes_E = np.take_along_axis(ranks_NK, places, 1)[kept_NK], codes_NK[kept_NK]
        with np.errstate(divide="ignore"):
            tails_N = np.rint(-np.log(rest_N) / TAIL_STEP).clip(0, 255).astype(np.uint8)
        packed = pack(ranks_E, codes_E, counts_N, rows_S, self.bits)
        return [tail + data for tail, data in zip(_cut(tails_N, rows_S), packed, strict=True)]

    def read(self, samples: Blobs, rows_S: Ints, where: str = "a recording") -> Dist:
        sizes = rows_S.tolist()
        tails = b"".join([data[:rows] for data, rows in zip(samples, sizes, strict=True)])
        data = [data[rows:] for data, rows in zip(samples, sizes, strict=True)]
        ranks_E, codes_E, counts_N = unpack(data, rows_S, self.bits, where)
        tail_N = self._tails.take(np.frombuffer(tails, dtype=np.uint8))
        mass_N = _sums(self._masses.take(codes_E), counts_N)
        with np.errstate(divide="ignore"):
            shift_N = (np.log1p(-np.exp(tail_N)) - np.log(mass_N)).astype(np.float32)
        # A row that is all tail but for its likeliest class cannot be: the largest code is below one.
        logs_E = self._levels.take(codes_E) + np.repeat(shift_N, counts_N)
        ids_NK, logs_NK = _padded(counts_N, (self.order.take(ranks_E), -1), (logs_E, -np.inf))
        return TopK(torch.from_numpy(ids_NK), torch.from_numpy(logs_NK), torch.from_numpy(tail_N))

    @cached_property
    def _levels(self) -> NDArray[np.float32]:
        return np.array(self.levels, dtype=np.float32)

    @cached_property
    def _masses(self) -> NDArray[np.float32]:
        return np.exp(self._levels)

    @cached_property
    def _tails(self) -> NDArray[np.float32]:
        """By code, the log of the tail; no tail leaves nothing for the named classes to hold."""
        tails = -TAIL_STEP * np.arange(256, dtype=np.float32)
        tails[0], tails[255] = -TAIL_STEP / 4, -np.inf
        return tails


@dataclass(frozen=True)
class Drawn(Ranked):
    """Classes drawn from the teacher with replacement: counts / draws is an unbiased picture of its probabilities.

    Attributes:
        count: draws of a row.

    Reference:
        Anshumann et al., Sparse Logit Sampling: Accelerating Knowledge Distillation in LLMs, 2025, arXiv:2503.16870.
    """

    count: int
    type: ClassVar[str] = "sampled"

    @property
    def draws(self) -> int:  # type: ignore[override]
        """Random numbers that a row takes."""
        return self.count

    @property
    def bits(self) -> int:
        """Width of a count."""
        return max(1, (self.count - 1).bit_length())

    def reduce(self, logits_NV: Tensor, uniform_ND: Tensor | None = None) -> Reduced:
        assert uniform_ND is not None
        sums_NV = torch.softmax(logits_NV.double(), 1).cumsum(1)
        target_ND = uniform_ND.to(sums_NV.device, torch.float64) * sums_NV[:, -1:]
        # The first class whose sum lies above the target: a class of probability zero is never drawn.
        ids_ND = torch.searchsorted(sums_NV, target_ND, right=True).clamp(max=logits_NV.shape[1] - 1)
        return (ids_ND.cpu().numpy(),)

    def write(self, rows: Reduced, rows_S: Ints) -> list[bytes]:
        ranks_ND = np.sort(self.ranks[rows[0]], axis=1)
        starts_ND = np.ones_like(ranks_ND, dtype=bool)
        starts_ND[:, 1:] = ranks_ND[:, 1:] != ranks_ND[:, :-1]
        counts_E = np.diff(np.append(np.flatnonzero(starts_ND), ranks_ND.size))
        return pack(ranks_ND[starts_ND], counts_E - 1, starts_ND.sum(1), rows_S, self.bits)

    def read(self, samples: Blobs, rows_S: Ints, where: str = "a recording") -> Dist:
        ranks_E, codes_E, counts_N = unpack(samples, rows_S, self.bits, where)
        ids_NK, times_NK = _padded(counts_N, (self.order.take(ranks_E), -1), (codes_E + 1, 0))
        return Sampled(torch.from_numpy(ids_NK), torch.from_numpy(times_NK))


KINDS: dict[str, type[Codec]] = {each.type: each for each in (Full, PlainTopK, PackedTopK, Drawn)}


def ranks_of(order: NDArray[np.int32]) -> Ints:
    """The rank of each class."""
    ranks = np.empty(len(order), dtype=np.int64)
    ranks[order] = np.arange(len(order))
    return ranks


def codec_from(config: Mapping[str, Any], order: NDArray[np.int32] | None = None) -> Codec:
    """The codec that a manifest describes."""
    given = {k: tuple(v) if isinstance(v, list) else v for k, v in config.items() if k != "type"}
    kind = KINDS[config["type"]]
    if issubclass(kind, Ranked):
        given["order"] = order
    return kind(**given)


def top_k(logits_NV: Tensor, k: int) -> tuple[NDArray[np.float32], Ints, NDArray[np.float32]]:
    """Log-probabilities and ids of the k likeliest classes, falling, and the log of what all others hold."""
    k = min(k, logits_NV.shape[1])
    values_NK, ids_NK = logits_NV.topk(k, dim=1)
    whole_N1 = logits_NV.logsumexp(1, keepdim=True)
    # Summed over the others, not as one minus the named: that would be rounding where they hold nearly all.
    rest_N = logits_NV.scatter(1, ids_NK, -torch.inf).logsumexp(1) - whole_N1[:, 0]
    return (values_NK - whole_N1).cpu().numpy(), ids_NK.cpu().numpy(), rest_N.cpu().numpy()


def _cut(values: NDArray[Any], rows_S: Ints) -> list[bytes]:
    """The bytes of each sample's rows."""
    return [part.tobytes() for part in np.split(values, np.cumsum(rows_S)[:-1])] if len(rows_S) else []


def _rows(samples: Blobs, rows_S: Ints, width: int, dtype: str, where: str) -> NDArray[Any]:
    data = b"".join(samples)
    kind = np.dtype(dtype).newbyteorder("<")
    if len(data) != int(rows_S.sum()) * width * kind.itemsize:
        raise ArtifactError(f"{where} does not hold what its index says", fix="record it again")
    return np.frombuffer(data, dtype=kind).reshape(-1, width)


def _sums(values_E: NDArray[np.float32], counts_N: Ints) -> NDArray[np.float32]:
    """Sums over each row's pairs; every row has one."""
    return np.add.reduceat(values_E, np.cumsum(counts_N) - counts_N) if len(values_E) else values_E[:0]


def _padded(counts_N: Ints, *given: tuple[NDArray[Any], float]) -> list[NDArray[Any]]:
    """Each row's values side by side, [N, K], and something else where it has fewer than the longest."""
    width = int(counts_N.max(initial=1))
    first_N = np.cumsum(counts_N) - counts_N
    places_E = np.arange(int(counts_N.sum())) + np.repeat(np.arange(len(counts_N)) * width - first_N, counts_N)
    made = []
    for values_E, fill in given:
        padded = np.full(len(counts_N) * width, fill, dtype=values_E.dtype)
        padded[places_E] = values_E
        made.append(padded.reshape(-1, width))
    return made
