"""What the contract of feature terms is tried on: ways to use each term, and made-up layers.

Shapes: B samples, T positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from limbeck.core.parts import build
from limbeck.core.types import Batch
from limbeck.objectives import Context, Layer, Pair

Real = Sequence[Sequence[int]] | None
Layers = Sequence[Tensor]

B, T, PAIRS = 5, 4, 2
LENGTHS = [4, 2, 3, 1, 4]
IDS = ("a", "b", "c", "d", "e")
LABELS = torch.tensor([0, 1, 0, 2, 1])
WEIGHTS = torch.tensor([1.0, 0.5, 0.0, 2.0, 1.0])


@dataclass(frozen=True)
class Spec:
    """One way to use a term.

    Attributes:
        fields: the part's fields.
        student, teacher: shapes of the taps, without the batch.
        text: whether the samples are texts with padding.
        heads: attention heads of both models.
        maps: whether the layers hold probabilities over keys.
    """

    fields: dict[str, Any] = field(default_factory=dict)
    student: tuple[tuple[int, ...], ...] = ((T, 3),)
    teacher: tuple[tuple[int, ...], ...] = ((T, 5),)
    text: bool = True
    heads: tuple[int, int] = (2, 2)
    maps: bool = False


def picture(student: tuple[int, ...], teacher: tuple[int, ...], **fields: Any) -> Spec:
    return Spec(fields, (student,), (teacher,), text=False)


def attention(count: int, heads: tuple[int, int] = (2, 2), mine: int = 4, theirs: int = 6, **fields: Any) -> Spec:
    return Spec(fields, ((T, mine),) * count, ((T, theirs),) * count, heads=heads)


POOLED = [Spec(), picture((3, 3, 3), (5, 2, 2))]
SPECS: dict[str, list[Spec]] = {
    "hidden": [
        *(Spec({"distance": distance}) for distance in ("layer_norm", "mse", "cosine")),
        Spec({}, ((3,),), ((5,),)),
        picture((3, 4, 3), (5, 2, 2)),
        picture((T + 1, 3), (5, 3, 3)),
        picture((3, 3, 3), (T + 2, 5)),
        picture((T, 3), (T, 5)),
    ],
    "fitnets": [Spec(), picture((3, 4, 4), (5, 2, 3)), picture((3, 2, 2), (5, 4, 4)), picture((T, 3), (5, 2, 2))],
    "attention_maps": [
        attention(2),
        attention(2, (2, 3), causal=True),
        attention(2, loss="kl", causal=True),
        attention(2, (2, 3), loss="kl"),
        Spec({"source": "maps", "loss": "kl"}, ((2, T, T),), ((2, T, T),), maps=True),
        Spec({"source": "maps", "loss": "kl"}, ((2, T, T),), ((3, T, T),), heads=(2, 3), maps=True),
        Spec({}, ((T, 4), (T, 2)), ((T, 6), (T, 6))),  # two queries share a key
    ],
    "relations": [
        attention(3),
        attention(3, relation_heads=1, mine=3),
        attention(1, relations=("value",)),
        replace(attention(3), text=False),
    ],
    "value_relations": [attention(1)],
    "attention_transfer": [picture((3, 4, 4), (5, 2, 2)), picture((T + 1, 3), (5, 3, 3), power=1.5)],
    "nst": [Spec(), picture((3, 4, 4), (5, 2, 2)), picture((3, 3, 3), (5, 3, 3))],
    "multilevel": [
        Spec(),
        Spec({"layer_map": "attention", "weighting": "fixed", "levels": {"token": 0.5, "layer": 2.0}}),
        Spec({"weighting": "uncertainty", "temperature": 2.0}),
        picture((3, 4, 4), (5, 2, 2)),
        picture((T, 3), (T, 5), temperature=0.1),
    ],
    "rkd": POOLED,
    "similarity_preserving": POOLED,
    "pkt": POOLED,
    "cka": [
        *POOLED,
        *(Spec({"pool": pool}) for pool in ("first", "last")),
        Spec({}, ((3,),), ((5,),)),
        picture((2, 2, 2), (3, 2, 1), pool="none"),
        picture((T, 3), (5, 2, 2)),
    ],
    "crd": [
        Spec({"queue_size": 7, "embedding_size": 4}),
        Spec({"queue_size": 7, "embedding_size": 4, "negatives": "other_class"}),
        picture((3, 3, 3), (5, 2, 2), queue_size=0),
    ],
}
"""By term, the ways in which it is tried."""


def mask_of(left: bool = False) -> Tensor:
    counts = torch.tensor(LENGTHS)[:, None]
    return (torch.arange(T) >= T - counts if left else torch.arange(T) < counts).long()


@dataclass
class Given:
    """A term on made-up layers. `leaves` and `told` are what models gave; gradients are asked of the leaves."""

    part: Any
    spec: Spec
    loss: Any
    leaves: list[list[Tensor]]
    told: list[list[Tensor]]
    mask: Tensor | None

    def batch(self) -> Batch:
        return Batch(IDS, {} if self.mask is None else {"attention_mask": self.mask}, LABELS)

    def run(self, weights: Tensor | None = None, **other: Any) -> Tensor:
        leaves, told = other.get("leaves", self.leaves), other.get("told", self.told)
        batch = other.get("batch", self.batch())
        return self.loss(self.layers(leaves), self.layers(told), Context(batch, weights=weights))

    def layers(self, leaves: list[list[Tensor]]) -> list[list[Tensor]]:
        """What the models' taps give: probabilities where the term reads them."""
        if not self.spec.maps:
            return leaves
        seen = torch.ones(B, T).bool() if self.mask is None else self.mask.bool()
        seen = seen[:, None, None, :]
        return [[torch.softmax(x.masked_fill(~seen[: len(x)], -1e9), -1) for x in taps] for taps in leaves]

    def inputs(self) -> list[Tensor]:
        return [x for taps in self.leaves for x in taps]

    def wanted(self) -> list[Tensor]:
        return [*self.inputs(), *self.loss.parameters()]

    def real(self) -> list[list[int]] | None:
        return None if self.mask is None else [row.nonzero().flatten().tolist() for row in self.mask]


def make(name: str, spec: Spec, dtype: torch.dtype = torch.float64, seed: int = 0, left: bool = False) -> Given:
    draw = torch.Generator().manual_seed(seed)

    def layers(shapes: tuple[tuple[int, ...], ...]) -> list[list[Tensor]]:
        made = [[torch.randn(B, *s, generator=draw, dtype=torch.float64) for s in shapes] for _ in range(PAIRS)]
        return [[x.to(dtype) for x in taps] for taps in made]

    part = build("objective", {"type": name, "match": {"s": "t"}, **spec.fields})
    torch.manual_seed(seed)
    given = Given(part, spec, part.build(pairs(spec)), layers(spec.student), layers(spec.teacher), None)
    given.mask = mask_of(left) if spec.text else None
    if dtype == torch.float64:
        given.loss.double()
    for leaf in given.inputs():
        leaf.requires_grad_()
    return given


def pairs(spec: Spec, teacher: tuple[tuple[int, ...], ...] | None = None) -> list[Pair]:
    def layer(who: str, shapes: tuple[tuple[int, ...], ...], heads: int, i: int) -> Layer:
        sizes = tuple(torch.Size((2, *shape)) for shape in shapes)
        config = SimpleNamespace(num_attention_heads=heads)
        return Layer(f"{who}.{i}", tuple(f"{who}.{i}.{k}" for k in range(len(shapes))), sizes, config)

    theirs = spec.teacher if teacher is None else teacher
    return [
        Pair(layer("s", spec.student, spec.heads[0], i), layer("t", theirs, spec.heads[1], i)) for i in range(PAIRS)
    ]


def filled(given: Given) -> Given:
    """With a queue that remembers other samples, and without remembering more."""
    if given.part.type() == "crd":
        other = make("crd", given.spec, seed=9)
        ids = tuple(f"{n}{i}" for i, n in enumerate(IDS))
        batch = replace(given.batch(), ids=("a", *ids[1:]), labels=LABELS.flip(0))  # one of them is here again
        given.run(leaves=other.leaves, told=other.told, batch=batch)
    given.loss.eval()
    return given


@dataclass(frozen=True)
class Case:
    """A term, what both models say, and of which samples.

    Attributes:
        part, loss: the term, and the module that it built.
        student, teacher: by pair, what the taps gave.
        real: which positions of each text are real; None for pictures.
        weights: the teacher's say in each sample.
        keys, labels: the samples' numbers and classes.
        heads: attention heads of the student and of the teacher.
    """

    part: Any
    loss: Any
    student: Sequence[Layers]
    teacher: Sequence[Layers]
    real: Real
    weights: Sequence[float]
    keys: Sequence[int] = ()
    labels: Sequence[int] = ()
    heads: tuple[int, int] = (2, 2)

    def of(self, place: int) -> tuple[Any, ...]:
        """One pair's share of it."""
        return self.part, self.loss, self.student[place], self.teacher[place], self.real, self.weights

    def told(self) -> Case:
        """Without the samples of weight zero."""
        keep = [b for b, weight in enumerate(self.weights) if weight > 0]
        student, teacher = ([[x[keep] for x in taps] for taps in side] for side in (self.student, self.teacher))
        rest = {"weights": self.weights, "keys": self.keys, "labels": self.labels}
        cut = {name: [values[b] for b in keep] for name, values in rest.items()}
        real = None if self.real is None else [self.real[b] for b in keep]
        return replace(self, student=student, teacher=teacher, real=real, **cut)
