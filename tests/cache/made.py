"""A small teacher, texts of different lengths, and batches of them in any form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from limbeck.cache.record import Source, record
from limbeck.cache.store import Cache, Facts, Format, describe
from limbeck.core import artifacts
from limbeck.core.types import IGNORE, Batch, Head, Needs, Signal

V, D = 40, 6
FACTS = Facts(teacher="weights", tokenizer="words", template="plain", vocabulary=V)
LAYER = "layer"
ALL = Needs(True, frozenset({LAYER}))


def texts(count: int = 30, seed: int = 0) -> list[torch.Tensor]:
    """Token ids of 2 to 12 tokens."""
    draw = torch.Generator().manual_seed(seed)
    sizes = torch.randint(2, 13, (count,), generator=draw).tolist()
    return [torch.randint(1, V, (size,), generator=draw) for size in sizes]


def prompt(ids: torch.Tensor) -> int:
    """Tokens without a label: a third."""
    return len(ids) // 3


def batch(rows: Sequence[torch.Tensor], which: Sequence[int], side: str = "right", more: int = 0) -> Batch:
    """Padded on a side, and by more than it must be."""
    width = max(len(rows[i]) for i in which) + more
    ids, mask = torch.zeros(2, len(which), width, dtype=torch.long)
    labels = torch.full((len(which), width), IGNORE)
    for row, i in enumerate(which):
        size = len(rows[i])
        at = slice(0, size) if side == "right" else slice(width - size, width)
        ids[row, at], mask[row, at] = rows[i], 1
        labels[row, at][prompt(rows[i]) :] = 1 + rows[i][prompt(rows[i]) :] % (V - 1)
    return Batch(tuple(f"row{i}" for i in which), {"input_ids": ids, "attention_mask": mask}, labels)


def packed(rows: Sequence[torch.Tensor], which: Sequence[int], width: int = 30) -> Batch:
    """Several samples a row, one behind the other."""
    spans: list[tuple[int, int, int]] = []
    row, end = 0, 0
    for i in which:
        if end + len(rows[i]) > width:
            row, end = row + 1, 0
        spans.append((row, end, end + len(rows[i])))
        end += len(rows[i])
    ids, mask, places = torch.zeros(3, row + 1, width, dtype=torch.long)
    labels = torch.full((row + 1, width), IGNORE)
    for i, (at, start, stop) in zip(which, spans, strict=True):
        single = batch(rows, [i])
        ids[at, start:stop], labels[at, start:stop] = single.inputs["input_ids"][0], single.labels[0]
        mask[at, start:stop], places[at, start:stop] = 1, torch.arange(stop - start)
    inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": places}
    return Batch(tuple(f"row{i}" for i in which), inputs, labels, packed=tuple(spans))


class Teacher:
    """Says something of each token that depends on the token and on the one before it in its sample."""

    def __init__(self, scale: float = 2.0):
        draw = torch.Generator().manual_seed(7)
        self.table = scale * torch.randn(V, D, generator=draw)
        self.weight = torch.randn(V, D, generator=draw)
        self.asked = 0

    def signal(self, given: Batch, needs: Needs = ALL) -> Signal:
        self.asked += len(given.ids)
        ids = given.inputs["input_ids"]
        before = torch.cat([torch.zeros_like(ids[:, :1]), ids[:, :-1]], 1)
        if given.packed is not None:
            for row, start, _ in given.packed:
                before[row, start] = 0
        else:
            before = before * torch.cat([torch.zeros_like(ids[:, :1]), given.inputs["attention_mask"][:, :-1]], 1)
        hidden = self.table[ids] + 0.5 * self.table[before]
        return Signal(Head(hidden, self.weight) if needs.dist else None, dict.fromkeys(needs.features, hidden))


@dataclass
class Made:
    """A recording in the making."""

    rows: list[torch.Tensor]
    teacher: Teacher
    size: int = 4

    @property
    def source(self) -> Source:
        return Source(
            [len(r) for r in self.rows], lambda which: batch(self.rows, which), self.teacher.signal, self.size
        )

    def record(self, folder: Path, made: Format, processes: int = 1, **more: Any) -> Cache:
        folder.mkdir(parents=True, exist_ok=True)
        made.save(folder)
        for number in range(processes):
            record(folder, self.source, made, (number, processes), **more)
        return self.seal(folder)

    def seal(self, folder: Path, **changed: Any) -> Cache:
        facts = replace(FACTS, **changed)
        artifacts.seal(folder, {"kind": "cache", "cache": describe(folder, facts, len(self.source.shards()))})
        return Cache(folder, facts)


def files(folder: Path) -> dict[str, bytes]:
    """The bytes of all shards."""
    return {path.name: path.read_bytes() for path in sorted(folder.glob("shard-*"))}


def dense(teacher: Teacher, given: Batch) -> torch.Tensor:
    """The teacher's logits at labelled positions, sample by sample."""
    from limbeck.cache.content import places, row_places

    head = teacher.signal(given).dist
    assert isinstance(head, Head)
    logits = head.hidden @ head.weight.T
    return logits.reshape(-1, V)[row_places(given, places(given))]


ORDER = np.arange(V, dtype=np.int32)
