"""The contract of every objective. Parts are found by name, so a new one is tested without a change here.

Shapes: B batch, T positions, D hidden width, V classes of the student, U of the teacher.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, fields, replace
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from limbeck.core.parts import build, find, names, reference, summary
from limbeck.core.types import Dense, Dist, Head
from limbeck.objectives import DistributionTerm, distribution_loss
from tests.contracts.oracles import ORACLES, naive

B, T, D, V = 2, 4, 3, 7
LABELS = torch.tensor([[1, -100, 0, 6], [-100, 2, -100, 5]])  # 5 valid rows
TRIED = {"temperature": (0.5, 2.0), "beta": (0.1, 0.9), "label_smoothing": (0.1,)}
"""Values that a field of this name is tried with, besides its default."""

PARTS = [build("objective", {"type": name}) for name in names("objective")]
TERMS = [part for part in PARTS if isinstance(part, DistributionTerm)]
DIVERGENCES = [term for term in TERMS if term.asks_teacher]


def variants(parts: list[Any]) -> list[Any]:
    """Every part with its defaults, and with each field that has other values to try."""
    found = []
    for part in parts:
        own = [each.name for each in fields(part) if each.name in TRIED]
        choices = [{}, *({name: value} for name in own for value in TRIED[name])]
        found += [
            pytest.param(replace(part, **c), id="-".join([part.type(), *(f"{k}{v}" for k, v in c.items())]))
            for c in choices
        ]
    return found


every_term = pytest.mark.parametrize("term", variants(TERMS))
every_divergence = pytest.mark.parametrize("term", variants(DIVERGENCES))
both_kinds = pytest.mark.parametrize("kind", ["head", "dense"])


@dataclass
class Case:
    """A student and a teacher of one batch, both as heads; teacher and student differ in width and bias."""

    hidden: Tensor
    weight: Tensor
    bias: Tensor
    teacher_hidden: Tensor
    teacher_weight: Tensor

    def leaves(self) -> list[Tensor]:
        return [self.hidden, self.weight, self.bias]

    def logits(self) -> Tensor:
        return self.hidden @ self.weight.T + self.bias

    def told(self) -> Tensor:
        return self.teacher_hidden @ self.teacher_weight.T

    def student(self, kind: str) -> Dist:
        return Head(self.hidden, self.weight, self.bias) if kind == "head" else Dense(self.logits())

    def teacher(self, kind: str) -> Dist:
        return Head(self.teacher_hidden, self.teacher_weight) if kind == "head" else Dense(self.told())


def case(dtype: torch.dtype = torch.float64, seed: int = 0, rows: int = V, columns: int = D, batch: int = B) -> Case:
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw, dtype=torch.float64).to(dtype)

    made = Case(normal(batch, T, columns), normal(rows, columns), normal(rows), normal(batch, T, 5), normal(rows, 5))
    for leaf in made.leaves():
        leaf.requires_grad_()
    return made


def run(term: Any, student: Dist, teacher: Dist | None, labels: Tensor = LABELS, **more: Any) -> Tensor:
    return distribution_loss(student, teacher, labels, [term], [1.0], **more)[0]


def gradients(loss: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    return list(torch.autograd.grad(loss, leaves))


def close(found: Any, wanted: Any, **more: Any) -> None:
    torch.testing.assert_close(found, wanted, **more)


@pytest.mark.parametrize("name", names("objective"))
def test_has_oracle_and_documentation(name: str) -> None:
    assert name in ORACLES, f"add an oracle for the objective '{name}' to tests/contracts/oracles.py"
    cls = find("objective", name)
    text = inspect.getdoc(cls) or ""
    assert summary(cls).endswith((".", ",")), "the first line says what the objective is"
    assert reference(cls), "the docstring names a paper under Reference:"
    assert any(sign in text.split("Reference:")[0] for sign in ("sum_", "||", "log ", "KL(")), "it shows its formula"
    assert "arXiv" in reference(cls) or "doi" in reference(cls)


@every_term
@pytest.mark.parametrize(("kind", "told"), list(product(["head", "dense"], repeat=2)))
def test_equals_its_oracle(term: Any, kind: str, told: str) -> None:
    given = case()
    total, sums = distribution_loss(
        given.student(kind), given.teacher(told), LABELS, [term], [0.7], chunk_bytes=4 * V * 2
    )
    wanted = naive(term, given.logits(), given.told(), LABELS)
    close(total, 0.7 * wanted)
    close(sums[term.label], wanted.detach())
    assert not sums[term.label].requires_grad
    close(gradients(total, given.leaves()), gradients(0.7 * wanted, given.leaves()))


@every_term
@both_kinds
def test_gradcheck(term: Any, kind: str) -> None:
    given = case()

    def loss(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        moved = replace(given, hidden=hidden, weight=weight, bias=bias)
        return run(term, moved.student(kind), given.teacher("dense"), chunk_bytes=4 * V * 2)

    assert torch.autograd.gradcheck(loss, given.leaves(), atol=1e-7)


def test_second_derivatives_are_refused_not_wrong() -> None:
    given = case()
    loss = run(build("objective", "cross_entropy"), given.student("head"), None).square()
    (gradient,) = torch.autograd.grad(loss, given.hidden, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.square().sum().backward()


@every_divergence
@both_kinds
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_identical_models_do_not_differ(term: Any, kind: str, dtype: torch.dtype) -> None:
    given = case(dtype, rows=50)
    hidden = (3 * given.hidden).detach().requires_grad_()  # logits of about 10, as trained models have
    mine = replace(given, hidden=hidden).student(kind)
    rounded_otherwise = Dense(torch.einsum("btd,vd->btv", hidden.flip(-1), given.weight.flip(-1)) + given.bias)
    assert abs(run(term, mine, rounded_otherwise)) < 1e-6 * (LABELS != -100).sum()
    loss = run(term, mine, mine)  # bit by bit: total variation has a kink where both are the same
    assert abs(loss) < 1e-6
    zero = 10 * torch.finfo(dtype).eps * term.temperature * hidden.abs().max()
    assert all(g.abs().max() < zero for g in gradients(loss, [hidden, given.weight, given.bias]))


@every_term
@both_kinds
@pytest.mark.parametrize("garbage", [1e4, -3e30])
def test_masked_rows_do_nothing(term: Any, kind: str, garbage: float) -> None:
    given = case(torch.float32)
    loss = run(term, given.student(kind), given.teacher("head"))
    wanted = gradients(loss, given.leaves())
    masked = LABELS == -100
    spoilt = replace(
        given,
        hidden=given.hidden.detach().masked_fill(masked[..., None], garbage).requires_grad_(),
        teacher_hidden=given.teacher_hidden.masked_fill(masked[..., None], -garbage),
    )
    again = run(term, spoilt.student("head"), spoilt.teacher("head"))
    close(again, loss)
    found = gradients(again, spoilt.leaves())
    close(found, wanted)
    assert (found[0][masked] == 0).all()
    assert (wanted[0][masked] == 0).all()


@every_term
def test_chunk_size_changes_nothing(term: Any) -> None:
    given, found = case(torch.float32), []
    for rows in (1, 3, 1000):
        loss = run(term, given.student("head"), given.teacher("head"), chunk_bytes=4 * V * rows)
        found.append((loss, gradients(loss, given.leaves())))
    for loss, slopes in found[1:]:
        close(loss, found[0][0])
        close(slopes, found[0][1])


@every_term
@both_kinds
def test_batches_add_up(term: Any, kind: str) -> None:
    given = case()
    whole = run(term, given.student(kind), given.teacher(kind))
    parts = torch.zeros((), dtype=torch.float64)
    for row in range(B):
        one = replace(given, hidden=given.hidden[row : row + 1], teacher_hidden=given.teacher_hidden[row : row + 1])
        parts = parts + run(term, one.student(kind), one.teacher(kind), LABELS[row : row + 1])
    close(parts, whole)
    close(gradients(parts, given.leaves()), gradients(whole, given.leaves()))


@every_term
@both_kinds
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_extreme_logits(term: Any, kind: str, dtype: torch.dtype) -> None:
    signs = torch.randint(0, 2, (2, B, T, V), generator=torch.Generator().manual_seed(1)) * 2.0 - 1
    hidden = (signs[0] * 1e4).to(dtype).requires_grad_()
    weight = torch.eye(V, dtype=dtype).requires_grad_()
    mine = Head(hidden, weight) if kind == "head" else Dense(hidden @ weight.T)
    loss = run(term, mine, Dense((signs[1] * 1e4).to(dtype)))
    assert torch.isfinite(loss)
    assert all(torch.isfinite(g).all() for g in gradients(loss, [hidden, weight]))


@every_divergence
@both_kinds
@pytest.mark.parametrize("told", ["head", "dense"])
def test_teacher_gets_no_gradient(term: Any, kind: str, told: str) -> None:
    given = case()
    leaves = [
        given.teacher_hidden.clone().requires_grad_(),
        given.teacher_weight.clone().requires_grad_(),
        torch.zeros(V, dtype=torch.float64, requires_grad=True),
    ]
    logits = leaves[0] @ leaves[1].T + leaves[2]
    run(term, given.student(kind), Head(*leaves) if told == "head" else Dense(logits)).backward()
    assert [leaf.grad for leaf in leaves] == [None, None, None]
    assert given.hidden.grad is not None


@every_divergence
@both_kinds
def test_gradient_follows_the_teacher(term: Any, kind: str) -> None:
    given, other = case(), case(seed=1)
    found = [gradients(run(term, given.student(kind), c.teacher("head")), [given.hidden])[0] for c in (given, other)]
    assert (found[0] - found[1]).abs().max() > 1e-3


@every_term
@pytest.mark.parametrize("way", ["weights", "autocast"])
def test_bfloat16_is_no_worse_than_the_naive_form(term: Any, way: str) -> None:
    """Against float64 on the same rounded inputs; the naive form makes its logits in bf16 and is exact from there."""
    half = case(torch.bfloat16, rows=300, columns=32, batch=8)
    labels = torch.arange(8 * T).reshape(8, T) * 7 % 300
    dtype = torch.bfloat16 if way == "weights" else torch.float32
    leaves = [leaf.detach().to(dtype).requires_grad_() for leaf in half.leaves()]
    exact = [leaf.detach().double().requires_grad_() for leaf in half.leaves()]
    told = half.told()

    reference = naive(term, exact[0] @ exact[1].T + exact[2], told.double(), labels)
    with torch.autocast("cpu", torch.bfloat16, enabled=way == "autocast"):
        ours = run(term, Head(*leaves), Dense(told), labels, chunk_bytes=4 * 300 * 8)
        theirs = naive(term, torch.nn.functional.linear(*leaves).double(), told.double(), labels)
    wanted = gradients(reference, exact)
    assert (ours - reference).abs() <= 1.2 * (theirs - reference).abs() + 1e-5 * reference.abs()
    for mine, plain, true in zip(gradients(ours, leaves), gradients(theirs, leaves), wanted, strict=True):
        assert mine.dtype == dtype
        assert (mine - true).norm() <= 1.2 * (plain - true).norm() + 1e-5 * true.norm()


@both_kinds
def test_one_pass_equals_separate_passes(kind: str) -> None:
    given = case()
    weights = [0.3 + 0.2 * i for i in range(len(TERMS))]
    total, sums = distribution_loss(given.student(kind), given.teacher("head"), LABELS, TERMS, weights)
    alone = [run(term, given.student(kind), given.teacher("head")) for term in TERMS]
    close(total, sum(w * value for w, value in zip(weights, alone, strict=True)))
    assert list(sums) == [term.label for term in TERMS]
    close(list(sums.values()), [value.detach() for value in alone])
    apart = sum(w * value for w, value in zip(weights, alone, strict=True))
    close(gradients(total, given.leaves()), gradients(apart, given.leaves()))


@every_term
@both_kinds
def test_no_valid_row(term: Any, kind: str) -> None:
    given = case(torch.float32)
    labels = torch.full_like(LABELS, -100)
    total, sums = distribution_loss(given.student(kind), given.teacher(kind), labels, [term], [1.0])
    assert total == 0
    assert sums == {term.label: 0}
    assert all((g == 0).all() for g in gradients(total, given.leaves()))


@every_term
@both_kinds
@pytest.mark.parametrize("ids", [[0, 1, 2, 3, 4], [0, 2, 3, 6], [1]], ids=["prefix", "scattered", "one"])
def test_shared_vocabulary(term: Any, kind: str, ids: list[int]) -> None:
    """Different sizes: the teacher has two rows more; both are cut to the shared ones and renormalised."""
    given, shared = case(), torch.tensor(ids)
    more = torch.randn(V + 2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    told = given.teacher_hidden @ more.T
    for teacher in (Head(given.teacher_hidden, more), Dense(told)):
        loss = run(term, given.student(kind), teacher, shared=shared, chunk_bytes=4 * V * 2)
        wanted = naive(term, given.logits(), told, LABELS, shared=shared)
        close(loss, wanted)
        close(gradients(loss, given.leaves()), gradients(wanted, given.leaves()))


@every_term
def test_frozen_head(term: Any) -> None:
    given = case()
    wanted = gradients(run(term, given.student("head"), given.teacher("head")), [given.hidden])[0]
    frozen = replace(given, weight=given.weight.detach(), bias=given.bias.detach())
    run(term, frozen.student("head"), given.teacher("head")).backward()
    close(given.hidden.grad, wanted)
    assert given.weight.grad is None
    assert given.bias.grad is None


@every_term
def test_frozen_body(term: Any) -> None:
    given = case()
    wanted = gradients(run(term, given.student("head"), given.teacher("head")), [given.weight])[0]
    run(term, replace(given, hidden=given.hidden.detach()).student("head"), given.teacher("head")).backward()
    close(given.weight.grad, wanted)
    assert given.hidden.grad is None


@every_term
def test_tied_embedding(term: Any) -> None:
    """The head's matrix is the embedding too: both shares of its gradient arrive."""
    given, ids = case(), torch.arange(B * T).reshape(B, T) % V
    hidden = torch.tanh(given.weight[ids])
    loss = run(term, Head(hidden, given.weight), given.teacher("head"))
    found = torch.autograd.grad(loss, given.weight, retain_graph=True)
    wanted = naive(term, hidden @ given.weight.T, given.told(), LABELS)
    close(found, torch.autograd.grad(wanted, given.weight))


@every_term
@both_kinds
def test_without_gradients_the_value_is_the_same(term: Any, kind: str) -> None:
    given = case(torch.float32)
    loss = run(term, given.student(kind), given.teacher("head"), chunk_bytes=4 * V * 2)
    with torch.no_grad():
        total, sums = distribution_loss(
            given.student(kind), given.teacher("head"), LABELS, [term], [1.0], chunk_bytes=4 * V * 2
        )
    assert not total.requires_grad
    close(total, loss.detach(), rtol=0, atol=0)
    close(sums[term.label], loss.detach(), rtol=0, atol=0)


@every_term
def test_one_class_labels(term: Any) -> None:
    """Classifiers: logits [B, V] and labels [B]."""
    given, labels = case(), torch.tensor([3, -100])
    mine, told = given.logits()[:, 0], given.told()[:, 0]
    close(run(term, Dense(mine), Dense(told), labels), naive(term, mine, told, labels))
