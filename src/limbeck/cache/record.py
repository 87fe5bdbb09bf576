"""Recording: a teacher is asked about every sample once.

Samples are dealt to shards by their place alone, and a shard's blocks are made of its samples alone. So a shard's bytes
depend neither on the number of processes nor on kills.

Shapes: N rows of distributions, V classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from limbeck.cache import features
from limbeck.cache.bits import HEAD, Ints
from limbeck.cache.codecs import Codec
from limbeck.cache.content import Place, places, row_places
from limbeck.cache.fit import Asked, Pilot, choose, tail_mass, total_variation
from limbeck.cache.shards import CRC, ENTRY, RECORD, Writer
from limbeck.cache.store import Format, entry_of
from limbeck.core.errors import DataError, ModelError
from limbeck.core.types import Batch, Dense, Dist, Head, Signal

SHARDS = 64
"""At most; processes share the work by shards."""
LEAST = 64
"""Samples of a shard, unless there are fewer."""
CHUNK_BYTES = 64 * 2**20
"""Memory of logits that are made at once."""
PILOT_ROWS, DENSE_BYTES = 4096, 128 * 2**20
"""Rows that a codec is chosen by; memory of those that it is measured by."""


@dataclass(frozen=True)
class Source:
    """What is to be recorded.

    Attributes:
        lengths: what each sample costs in a batch.
        batch: makes a batch of samples, by their places.
        signal: asks the teacher for all that is to be kept.
        size: samples in one forward pass, and in a block.
    """

    lengths: Sequence[int]
    batch: Callable[[Sequence[int]], Batch]
    signal: Callable[[Batch], Signal]
    size: int

    def shards(self) -> list[range]:
        """The samples of each shard."""
        each = max(LEAST, -(-len(self.lengths) // SHARDS))
        return [range(start, min(start + each, len(self.lengths))) for start in range(0, len(self.lengths), each)]

    def blocks(self, shard: range) -> list[list[int]]:
        """A shard's batches: samples of like length together."""
        ordered = sorted(shard, key=lambda i: (-self.lengths[i], i))
        return [ordered[at : at + self.size] for at in range(0, len(ordered), self.size)]


def record(
    folder: Path,
    source: Source,
    made: Format,
    process: tuple[int, int] = (0, 1),
    on_block: Callable[[int], None] = lambda samples: None,
) -> None:
    """Record this process's share of the shards, or what is left of it.

    Args:
        folder: takes the shards.
        source: the samples and the teacher.
        made: how signals are kept.
        process: its number, and how many there are.
        on_block: told how many samples are done, also of those that were there already.

    Raises:
        DataError: a batch holds other samples than it was made of.
    """
    for number in range(process[0], len(source.shards()), process[1]):
        writer = Writer(folder, number)
        try:
            blocks = source.blocks(source.shards()[number])
            for block in blocks[: writer.blocks]:
                on_block(len(block))
            for block in blocks[writer.blocks :]:
                writer.add(*_block(source, made, block))
                on_block(len(block))
        finally:
            writer.close()


@torch.no_grad()
def _block(source: Source, made: Format, block: Sequence[int]) -> tuple[Any, list[bytes], list[bytes]]:
    """Entries, distributions and features of a block's samples."""
    batch = source.batch(block)
    told, found = source.signal(batch), places(batch)
    if len(found) != len(block):
        raise DataError("a batch for recording holds other samples than it was made of", got=len(found))
    entries = np.array([entry_of(place) for place in found], dtype=ENTRY)
    written = [b""] * len(found)
    if made.codec is not None:
        assert told.dist is not None
        rows_S = entries["rows"].astype(np.int64)
        written = made.codec.write(_reduced(made.codec, told.dist, batch, found), rows_S)
    kept = []
    for place in found:
        value = [features.own(told.features[path][place.row], place.real) for path in made.features]
        kept.append(b"".join(features.write(each, made.dtype) for each in value))
    return entries, written, kept


def _reduced(codec: Codec, dist: Dist, batch: Batch, found: Sequence[Place]) -> tuple[Any, ...]:
    uniform = _uniforms(codec.draws, found)
    parts, at = [], 0
    for logits_NV in logits_of(dist, row_places(batch, found)):
        mine = None if uniform is None else uniform[at : at + len(logits_NV)]
        parts.append(codec.reduce(logits_NV, mine))
        at += len(logits_NV)
    return tuple(np.concatenate(each) for each in zip(*parts, strict=True))


def _uniforms(draws: int, found: Sequence[Place]) -> Tensor | None:
    """Random numbers that depend on the sample alone."""
    if not draws:
        return None
    rows = [np.random.Generator(np.random.Philox(key=p.key[1])).random((p.rows, draws)) for p in found]
    return torch.from_numpy(np.concatenate(rows))


def logits_of(dist: Dist, rows: Tensor) -> Iterator[Tensor]:
    """Some rows of a teacher's logits, float32, as many at once as memory allows; at least one part.

    Raises:
        ModelError: a row has NaN, or nothing finite: a codec would make some class certain of it, and say nothing.
    """
    assert isinstance(dist, Dense | Head), "a teacher that is recorded gives logits or a head"
    flat = dist.logits if isinstance(dist, Dense) else dist.hidden
    flat = flat.reshape(-1, flat.shape[-1])
    classes = flat.shape[-1] if isinstance(dist, Dense) else len(dist.weight)
    for part in rows.to(flat.device).split(max(1, CHUNK_BYTES // (4 * classes))) or [rows]:
        picked = flat[part]
        if isinstance(dist, Head):
            picked = torch.nn.functional.linear(picked.to(dist.weight.dtype), dist.weight, dist.bias)
        logits_NV = picked.float()
        if not logits_NV.amax(1).isfinite().all():
            raise ModelError("the teacher's logits are not finite", fix="teacher.dtype=float32, or another teacher")
        yield logits_NV


@dataclass(frozen=True)
class Fitted:
    """A codec and how near it comes on the rows that it was chosen by.

    Attributes:
        codec: None where no distribution is to be kept.
        figures: `total_variation`, `tail_mass` (absent where there is none), `positions`.
    """

    codec: Codec | None
    figures: dict[str, float]


@torch.no_grad()
def fit(source: Source, asked: Asked, prior: Ints | None = None, drawable: bool = True) -> Fitted:
    """Choose the codec that the budget buys, and measure it against the dense teacher.

    Args:
        source: the samples and the teacher; samples drawn from all are asked about.
        asked: the budget.
        prior: how often each class is a label [V].
        drawable: whether the terms learn from drawn classes without bias.

    Raises:
        RecipeError: the budget is too small, or what is asked for does not fit.
    """
    pilot: Pilot | None = None
    count, rows, samples, dense, kept = len(source.lengths), 0, 0, 0, []
    spread = np.random.default_rng(0).permutation(count).tolist()
    for at in range(0, count, source.size):
        batch = source.batch(spread[at : at + source.size])
        found, dist = places(batch), source.signal(batch).dist
        if dist is None:
            return Fitted(None, {})
        samples += len(found)
        for logits_NV in logits_of(dist, row_places(batch, found)):
            pilot = pilot or Pilot(logits_NV.shape[1], prior, draws=drawable and asked.may_draw)
            pilot.add(logits_NV)
            if dense < DENSE_BYTES and len(logits_NV):
                kept.append(logits_NV[: max(1, (DENSE_BYTES - dense) // (4 * logits_NV.shape[1]))].cpu())
                dense += kept[-1].numel() * 4
            rows += len(logits_NV)
        if rows >= PILOT_ROWS:
            break
    if pilot is None or not rows:
        raise DataError("there is no label that a teacher could be recorded at")
    blocks = sum(len(source.blocks(shard)) for shard in source.shards())
    block = blocks * (RECORD.size + CRC.size) / count
    # Both parts of a sample's bytes end in a byte that is filled up, each by half on average.
    codec = choose(asked, pilot, (ENTRY.itemsize + HEAD + 1 + block) * samples / rows, drawable)
    return Fitted(codec, measure(codec, torch.cat(kept)))


def measure(codec: Codec, logits_NV: Tensor) -> dict[str, float]:
    """How near a codec comes to the dense teacher: means over rows."""
    logits_NV = logits_NV[:1024]
    uniform = torch.rand(len(logits_NV), codec.draws, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows_S = np.array([len(logits_NV)])
    data = codec.write(codec.reduce(logits_NV, uniform if codec.draws else None), rows_S)
    told = codec.read(data, rows_S)
    found = {"total_variation": float(total_variation(logits_NV, told).mean()), "positions": len(logits_NV)}
    tail = tail_mass(told)
    return found if tail is None else {**found, "tail_mass": tail}
