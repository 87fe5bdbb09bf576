"""The few types that rooms hand to each other.

Shapes: B batch, T positions, V vocabulary or classes, D hidden width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal

from limbeck.core.errors import RecipeError

if TYPE_CHECKING:
    from torch import Tensor

IGNORE = -100
"""The label of a position that is not learned (the field's convention)."""
WRITTEN = "written_by_a_model"
"""Key in `Sample.meta` of rows whose text a model wrote, which is nobody's word for control tokens."""


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
        weights: how much each label counts, like `labels`; None: all the same.
        blend: the second label of samples that were made out of two (mixup, cutmix).
        views: how many times each sample is there: rows i, i + B / views, ... are views of one sample.
        draws: the key of each row's random change, None where a row is as it was; left out: all are.
        teacher: the same samples as the teacher reads them, where its tokenizer is another one.
        spans: which stretch of text each label belongs to, like `labels`; -1: none. A stretch has the same number
            in `teacher.spans`. Given where the tokenizers differ.
        packed: where each sample lies, (row, first position, position after its last), if several share a row; then
            there are more ids than rows. None: sample i is row i.
    """

    ids: tuple[str, ...]
    inputs: Mapping[str, Tensor]
    labels: Tensor
    weights: Tensor | None = None
    blend: Blend | None = None
    views: int = 1
    draws: tuple[str | None, ...] | None = None
    teacher: Batch | None = None
    spans: Tensor | None = None
    packed: tuple[tuple[int, int, int], ...] | None = None

    @property
    def real(self) -> Tensor | None:
        """Which positions of the input are no padding, [B, T]; None where there is no attention mask.

        An attention mask is [B, T], or [B, 1, T, T] and added to the scores: there a real position sees itself.
        """
        mask = self.inputs.get("attention_mask")
        if mask is None or mask.ndim == 2:
            return None if mask is None else mask != 0
        return mask[:, 0].diagonal(dim1=-2, dim2=-1) == 0

    def to(self, device: Any) -> Batch:
        """The same batch on another device."""
        moved = {f.name: getattr(self, f.name) for f in fields(self)}
        moved = {name: value.to(device) for name, value in moved.items() if hasattr(value, "to")}
        return replace(self, **moved, inputs={k: v.to(device) for k, v in self.inputs.items()})

    def one_a_row(self, who: str) -> None:
        """Refuse a packed batch.

        Args:
            who: what needs a row for each sample, for the message.

        Raises:
            RecipeError: several samples share a row.
        """
        if self.packed is not None:
            raise RecipeError(f"{who} needs one sample a row, and these are packed", fix="task.packing=false")

    def rows(self, which: Tensor) -> Batch:
        """Some of the samples, by their places [n]; they are no longer told apart as views.

        Raises:
            RecipeError: the samples are packed.
        """
        self.one_a_row("taking samples out of a batch")
        moved = {f.name: getattr(self, f.name) for f in fields(self)}
        moved = {n: v.rows(which) if hasattr(v, "rows") else v[which] for n, v in moved.items() if _is_data(v)}
        ids = tuple(self.ids[i] for i in which.tolist())
        draws = None if self.draws is None else tuple(self.draws[i] for i in which.tolist())
        inputs = {k: v[which] for k, v in self.inputs.items()}
        return replace(self, **moved, ids=ids, views=1, draws=draws, inputs=inputs)


@dataclass(frozen=True)
class Blend:
    """The second of two samples that were blended.

    Attributes:
        labels: its labels, like `Batch.labels`.
        share: how much of it there is, [B], between 0 and 1; the first one has the rest.
    """

    labels: Tensor
    share: Tensor

    def to(self, device: Any) -> Blend:
        """The same on another device."""
        return Blend(self.labels.to(device), self.share.to(device))

    def rows(self, which: Tensor) -> Blend:
        """Some of the samples, by their places [n]."""
        return Blend(self.labels[which], self.share[which])


def _is_data(value: Any) -> bool:
    """Whether it is a tensor, a blend or a batch, which can be moved and cut."""
    return hasattr(value, "to")


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


@dataclass(frozen=True)
class TopK:
    """A distribution of which the K likeliest classes are known, at T = 1.

    Attributes:
        ids: their class ids, [..., K]; -1 fills up rows that hold fewer.
        logprobs: their log-probabilities, [..., K].
        tail: log of all the rest's probability, [...]; -inf where nothing is left.
    """

    ids: Tensor
    logprobs: Tensor
    tail: Tensor


@dataclass(frozen=True)
class Sampled:
    """A distribution known by classes drawn from it: an unbiased picture of it.

    Attributes:
        ids: the distinct classes that were drawn, [..., K]; -1 fills up rows that hold fewer.
        counts: how often, [..., K]; zero where the id is -1.
    """

    ids: Tensor
    counts: Tensor


@dataclass(frozen=True)
class Mixture:
    """Several distributions over the same classes as one: sum_m w_m p_m.

    Attributes:
        members: what each says.
        log_weights: log w_m of every sample, [B, M]; -inf leaves a member out.
    """

    members: tuple[Any, ...]
    log_weights: Tensor


Dist = Dense | Head | TopK | Sampled | Mixture

Unit = Literal["label", "position", "sample", "batch"]
"""What an objective is summed over: labels to learn (by their weights), real positions of the input (a picture
counts as one), samples, or micro-batches as wholes."""


@dataclass(frozen=True)
class Signal:
    """What a model, teacher or student, says about a batch.

    Attributes:
        dist: what it says of the labels.
        features: what its layers hold, by the path that was asked for.
        weights: the teacher's say in each sample, [B]; zero: it was not asked. None: all the same.
    """

    dist: Dist | None = None
    features: Mapping[str, Tensor] = field(default_factory=dict)
    weights: Tensor | None = None


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
