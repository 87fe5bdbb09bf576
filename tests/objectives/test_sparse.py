"""Teachers that name a few classes: as good as all logits where they name all, and hiding nothing where they do not.

Shapes: B batch, T positions, D hidden width, V classes, K classes that a row names, N valid rows.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from limbeck.core.errors import ModelError, RecipeError
from limbeck.core.parts import build, find, names
from limbeck.core.types import Dense, Dist, Head, Sampled, TopK
from limbeck.objectives import DistributionTerm, distribution_loss

B, T, D, V = 2, 4, 3, 9
LABELS = torch.tensor([[1, -100, 0, 8], [-100, 2, 4, 5]])
VALID = LABELS != -100
ROWS = [find("objective", name) for name in names("objective")]
ROWS = [build("objective", {"type": cls.type()}) for cls in ROWS if issubclass(cls, DistributionTerm)]
TERMS = [term for term in ROWS if term.asks_teacher and not term.needs_all_classes]
CE = build("objective", "cross_entropy")
every_term = pytest.mark.parametrize("term", TERMS, ids=[term.type() for term in TERMS])
both_kinds = pytest.mark.parametrize("kind", ["head", "dense"])


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


class Case:
    """A student that needs gradients, and a teacher's logits."""

    def __init__(self, scale: float = 1.0, dtype: torch.dtype = torch.float64):
        self.hidden = (scale * normal(B, T, D, dtype=dtype)).requires_grad_()
        self.weight = normal(V, D, seed=1, dtype=dtype).requires_grad_()
        self.told = scale * normal(B, T, V, seed=2, dtype=dtype)

    def run(self, kind: str, teacher: Dist, terms: Any, labels: Tensor = LABELS, **more: Any) -> Tensor:
        mine = Head(self.hidden, self.weight) if kind == "head" else Dense(self.hidden @ self.weight.T)
        return distribution_loss(mine, teacher, labels, terms, [0.8] * len(terms), chunk_bytes=200, **more)[0]

    def slopes(self, loss: Tensor) -> list[Tensor]:
        return list(torch.autograd.grad(loss, [self.hidden, self.weight]))


def top(logits: Tensor, k: int, fill: int = 0) -> TopK:
    """The likeliest classes in no particular order, with places that stay empty."""
    logs = torch.log_softmax(logits, -1)
    values, ids = logs.topk(k, sorted=False)
    tail = (1 - values.exp().sum(-1)).clamp(min=0).log() if k < V else torch.full_like(values[..., 0], -torch.inf)
    if fill:
        empty = torch.full((*ids.shape[:-1], fill), -1)
        ids, values = torch.cat([empty, ids], -1), torch.cat([torch.zeros_like(empty, dtype=values.dtype), values], -1)
    return TopK(ids, values, tail)


def close(found: Any, wanted: Any, **more: Any) -> None:
    torch.testing.assert_close(found, wanted, **more)


@every_term
@both_kinds
@pytest.mark.parametrize("temperature", [1.0, 2.0, 0.7])
@pytest.mark.parametrize("fill", [0, 2])
def test_all_classes_named_equal_all_logits(term: Any, kind: str, temperature: float, fill: int) -> None:
    given, term = Case(), build("objective", {"type": term.type(), "temperature": temperature})
    dense = given.run("head", Dense(given.told), [CE, term])
    sparse = given.run(kind, top(given.told, V, fill), [CE, term])
    close(sparse, dense)
    close(given.slopes(sparse), given.slopes(dense))


def bucketed(logits: Tensor, ids: Tensor) -> Tensor:
    """Probabilities of the named classes and of all the rest, one row at a time."""
    rows = []
    for row, named in zip(torch.softmax(logits, -1), ids, strict=True):
        rest = [v for v in range(V) if v not in named.tolist()]
        rows.append(torch.cat([row[named], row[rest].sum()[None]]))
    return torch.stack(rows)


@every_term
@both_kinds
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_top_k_compares_buckets(term: Any, kind: str, temperature: float) -> None:
    """As a dense teacher and student of K + 1 classes, which are the buckets."""
    given, term = Case(), build("objective", {"type": term.type(), "temperature": temperature})
    teacher = top(given.told, 4, fill=1)
    loss = given.run(kind, teacher, [term])
    ids = teacher.ids[VALID][:, 1:]
    mine, told = (bucketed(z[VALID], ids).log() for z in (given.hidden @ given.weight.T, given.told))
    labels = torch.zeros(len(mine), dtype=torch.long)
    wanted = distribution_loss(Dense(mine), Dense(told), labels, [term], [0.8])[0]
    close(loss, wanted)
    close(given.slopes(loss), given.slopes(wanted))


@every_term
@both_kinds
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_nothing_outside_the_named_classes_is_hidden(term: Any, kind: str, temperature: float) -> None:
    """A student with the teacher's proportions inside and nearly all its mass outside is far from it, not at zero."""
    term = build("objective", {"type": term.type(), "temperature": temperature})
    told = torch.tensor([4.0, 3.5, 3.0, 2.5, -9.0, -9.0, -9.0, -9.0, -9.0], dtype=torch.float64)
    mine = told.clone()
    mine[4:] = 9.0
    weight = torch.eye(V, dtype=torch.float64).requires_grad_()
    student = Head(mine[None], weight) if kind == "head" else Dense(mine[None] @ weight)
    label = torch.tensor([0])
    far = distribution_loss(student, top(told[None], 4), label, [term], [1.0])[0]
    same = Head(told[None], weight) if kind == "head" else Dense(told[None] @ weight)
    near = distribution_loss(same, top(told[None], 4), label, [term], [1.0])[0]
    assert far > 0.1
    assert abs(near) < 1e-9
    (slope,) = torch.autograd.grad(far, weight)
    assert slope.abs().max() > 1e-3


@both_kinds
def test_gradcheck_with_a_tail(kind: str) -> None:
    given, teacher = Case(), top(normal(B, T, V, seed=2), 4)
    term = build("objective", {"type": "jensen_shannon", "temperature": 2})

    def loss(hidden: Tensor, weight: Tensor) -> Tensor:
        moved = Case()
        moved.hidden, moved.weight = hidden, weight
        return moved.run(kind, teacher, [CE, term])

    assert torch.autograd.gradcheck(loss, [given.hidden, given.weight], atol=1e-7, fast_mode=True)


@both_kinds
def test_counts_like_the_probabilities_equal_all_logits(kind: str) -> None:
    given, counts = Case(), torch.randint(1, 9, (B, T, V), generator=torch.Generator().manual_seed(0))
    teacher = Sampled(torch.arange(V).expand(B, T, V), counts)
    kl = build("objective", "kl")
    loss, wanted = (given.run(kind, t, [CE, kl]) for t in (teacher, Dense(counts.double().log())))
    close(loss, wanted)
    close(given.slopes(loss), given.slopes(wanted))


@both_kinds
def test_drawn_classes_give_the_gradient_without_bias(kind: str) -> None:
    """Over all ways to draw two of three classes, by their probability: exactly the dense gradient."""
    label, p = torch.tensor([1]), torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    hidden = torch.tensor([[0.4, -1.0]], dtype=torch.float64)
    weight = normal(3, 2).requires_grad_()
    kl = build("objective", "kl")

    def slope(teacher: Dist) -> Tensor:
        mine = Head(hidden, weight) if kind == "head" else Dense(hidden @ weight.T)
        return torch.autograd.grad(distribution_loss(mine, teacher, label, [kl], [1.0])[0], weight)[0]

    mean = torch.zeros_like(weight)
    for a in range(3):
        for b in range(3):
            ids, counts = ([[a, -1]], [[2, 0]]) if a == b else ([[a, b]], [[1, 1]])
            mean = mean + p[a] * p[b] * slope(Sampled(torch.tensor(ids), torch.tensor(counts)))
    close(mean, slope(Dense(p.log()[None])))


@every_term
@both_kinds
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_extreme_logits(term: Any, kind: str, temperature: float) -> None:
    term = build("objective", {"type": term.type(), "temperature": temperature})
    signs = torch.randint(0, 2, (2, B, T, V), generator=torch.Generator().manual_seed(1)) * 2.0 - 1
    for size in (30.0, 200.0, 1e4):
        hidden, weight = (signs[0] * size).requires_grad_(), torch.eye(V).requires_grad_()
        for k in (1, 3, V):
            mine = Head(hidden, weight) if kind == "head" else Dense(hidden @ weight.T)
            loss = distribution_loss(mine, top(signs[1] * size, k, 1), LABELS, [CE, term], [1.0, 1.0])[0]
            assert torch.isfinite(loss)
            assert all(torch.isfinite(g).all() for g in torch.autograd.grad(loss, [hidden, weight]))


def test_the_tail_is_exact_where_the_named_classes_hold_nearly_all() -> None:
    """1 minus their sum would be zero in float32; the student's rest is about 1e-12 here."""
    logits = torch.tensor([[30.0, 29.0, 1.0, 0.0, 2.0, -1.0, 0.5, 0.0, 1.0]])
    weight = torch.eye(V).requires_grad_()
    teacher = TopK(
        torch.tensor([[0, 1]]), torch.tensor([[-1.0, -1.0]]), torch.tensor([1 - 2 * torch.tensor(-1.0).exp()]).log()
    )
    loss = distribution_loss(Head(logits, weight), teacher, torch.tensor([0]), [build("objective", "kl")], [1.0])[0]
    exact = bucketed(logits.double(), torch.tensor([[0, 1]])).log()
    told = torch.log_softmax(torch.cat([teacher.logprobs, teacher.tail[:, None]], 1).double(), 1)
    close(loss.double(), (told.exp() * (told - exact)).sum(), rtol=1e-6, atol=0)


@both_kinds
@pytest.mark.parametrize("shared", [torch.arange(V - 2), torch.tensor([0, 1, 2, 4, 5, 8])], ids=["prefix", "some"])
def test_shared_vocabulary(kind: str, shared: Tensor) -> None:
    """Ids are those of the classes that both have, and others, which take no part as those of the student do not."""
    given, term = Case(), build("objective", {"type": "jensen_shannon", "temperature": 2})
    dense = given.run(kind, Dense(given.told), [CE, term], shared=shared)
    slopes = given.slopes(dense)
    logs = torch.log_softmax(given.told[..., shared], -1)
    of_shared = TopK(shared.expand(B, T, -1), logs, torch.full((B, T), -torch.inf))
    for teacher in (of_shared, top(given.told, V, fill=1)):
        loss = given.run(kind, teacher, [CE, term], shared=shared)
        close(loss, dense)
        close(given.slopes(loss), slopes)
    with pytest.raises(RecipeError, match="tail may hold classes"):
        given.run(kind, top(given.told, 5), [term], shared=shared)


@both_kinds
def test_drawn_classes_that_the_student_lacks_do_not_count(kind: str) -> None:
    given, shared, kl = Case(), torch.tensor([0, 1, 2, 4, 5, 8]), build("objective", "kl")
    counts = torch.randint(1, 9, (B, T, V), generator=torch.Generator().manual_seed(0))
    drawn = Sampled(torch.arange(V).expand(B, T, V), counts)
    loss, wanted = (given.run(kind, t, [CE, kl], shared=shared) for t in (drawn, Dense(counts.double().log())))
    close(loss, wanted)
    close(given.slopes(loss), given.slopes(wanted))
    with pytest.raises(ModelError, match="names no class"):
        given.run(kind, Sampled(torch.full((B, T, 1), 3), torch.ones(B, T, 1)), [kl], shared=shared)


def test_a_tail_of_nothing_is_softened_like_any_probability() -> None:
    """As a dense teacher of buckets, the last of which is at the floor."""
    term = build("objective", {"type": "reverse_kl", "temperature": 4})
    ids, mine = torch.tensor([[0, 1]]), normal(1, V)
    teacher = TopK(ids, torch.tensor([[-0.5, -0.5]]).log_softmax(1), torch.tensor([-torch.inf]))
    told = torch.cat([teacher.logprobs, torch.tensor([[-87.0]])], 1).double()
    student = bucketed(mine, ids).log()
    found, wanted = (
        distribution_loss(Dense(z), t, torch.tensor([0]), [term], [1.0])[0]
        for z, t in ((mine, teacher), (student, Dense(told)))
    )
    close(found, wanted)


def test_a_class_that_the_student_lacks_is_refused() -> None:
    teacher = TopK(torch.full((B, T, 1), V), torch.zeros(B, T, 1), torch.full((B, T), -torch.inf))
    with pytest.raises(ModelError, match=f"class {V}"):
        Case().run("head", teacher, [build("objective", "kl")])


def test_terms_that_need_more_are_refused() -> None:
    given, drawn = Case(), Sampled(torch.zeros(B, T, 1, dtype=torch.long), torch.ones(B, T, 1))
    with pytest.raises(RecipeError, match="reads every class"):
        given.run("head", top(given.told, 3), [build("objective", "dkd")])
    with pytest.raises(RecipeError, match="biased"):
        given.run("head", drawn, [build("objective", "reverse_kl")])
    with pytest.raises(RecipeError, match="cannot be softened"):
        given.run("head", drawn, [build("objective", {"type": "kl", "temperature": 2})])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_weigh_and_chunks_do_not_matter(dtype: torch.dtype) -> None:
    given, teacher = Case(dtype=dtype), top(Case().told, 3)
    weights = torch.tensor([[2.0, 5.0, 0.5, 0.0], [1.0, 1.0, 3.0, 1.5]])
    terms = [CE, build("objective", "kl")]
    found = [
        given.run(kind, teacher, terms, row_weights=weights, teacher_weights=torch.tensor([0.3, 1.0]))
        for kind in ("head", "dense")
    ]
    close(found[0], found[1], rtol=1e-5, atol=1e-5)
    close(*(given.slopes(loss) for loss in found), rtol=1e-5 if dtype == torch.float32 else 0.05, atol=0.02)
