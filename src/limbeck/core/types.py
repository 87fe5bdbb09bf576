"""The few types that rooms hand to each other.

Shapes: B batch, T positions, V vocabulary or classes, D hidden width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

IGNORE = -100
"""The label of a position that is not learned (the field's convention)."""


@dataclass(frozen=True)
class Sample:
    """One example as data knows it: JSON values, plus pixels or waveforms as numpy arrays.

    `id` is stable: it does not depend on order, shuffling or subsampling.
    """

    id: str
    inputs: Mapping[str, Any]
    target: Any = None
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Batch:
    """Samples as a model takes them.

    Attributes:
        ids: the samples' ids, one a row.
        inputs: keyword arguments of the model, each [B, ...].
        labels: [B, T] for sequences or [B] for classes. `labels[p]` is the answer to output `p`:
            the shift of language modelling is already done. `IGNORE` marks what is not learned.
    """

    ids: tuple[str, ...]
    inputs: Mapping[str, Tensor]
    labels: Tensor

    def to(self, device: Any) -> Batch:
        """The same batch on another device."""
        return Batch(self.ids, {k: v.to(device) for k, v in self.inputs.items()}, self.labels.to(device))


@dataclass(frozen=True)
class Dense:
    """A distribution given by its logits: [B, V] or [B, T, V]."""

    logits: Tensor


@dataclass(frozen=True)
class Head:
    """A distribution not yet multiplied out: `hidden @ weight.T + bias`, [B, T, V], never held whole."""

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None = None


Dist = Dense | Head


@dataclass(frozen=True)
class Signal:
    """What a model, teacher or student, says about a batch."""

    dist: Dist | None = None
    features: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Needs:
    """What an objective asks of a model, or what a teacher can give.

    `|` unites two; `have.missing(need)` names what is asked for and not there.
    """

    dist: bool = False
    features: frozenset[str] = frozenset()

    def __or__(self, other: Needs) -> Needs:
        return Needs(self.dist or other.dist, self.features | other.features)

    def __bool__(self) -> bool:
        return self.dist or bool(self.features)

    def missing(self, need: Needs) -> list[str]:
        """Names of what `need` asks for that is not here, in a stable order."""
        return ["dist"] * (need.dist and not self.dist) + sorted(need.features - self.features)


@dataclass(frozen=True)
class Rows:
    """A table that data sources give: dictionaries by position, and where they came from.

    Attributes:
        rows: random access to dictionaries (a list, or a `datasets.Dataset`).
        origin: what an error message calls it, usually a path.
        first: the number that the first row bears in `origin` (a CSV's first data row is line 2).
        label_names: names of integer labels, where the source knows them.
    """

    rows: Any
    origin: str
    first: int = 0
    label_names: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        row: Mapping[str, Any] = self.rows[index]
        return row

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return (self.rows[i] for i in range(len(self.rows)))

    def where(self, index: int) -> str:
        """`origin`, and the row as a person would look it up there."""
        return f"{self.origin}, row {index + self.first}"
