"""The contract of every distribution term: its values and gradients. Parts are found by name, so a new one is tested
without a change here. `test_objective_inputs.py` has the other half: rows, chunks, vocabularies.

Shapes: B batch, T positions, D hidden width, V classes of the student, U of the teacher.
"""

from __future__ import annotations

import inspect
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd.gradcheck import GradcheckError

from limbeck.core.parts import build, find, reference, summary
from limbeck.core.types import Dense, Head
from limbeck.objectives import distribution_loss
from tests.contracts.cases import (
    DIVERGENCES,
    LABELS,
    NAMES,
    NOT_ZERO,
    TERMS,
    WEIGHED,
    B,
    T,
    V,
    both_kinds,
    case,
    close,
    every_divergence,
    every_variant,
    gradients,
    run,
    variants,
)
from tests.contracts.oracles import ORACLES, naive


@pytest.mark.parametrize("name", NAMES)
def test_has_oracle_and_documentation(name: str) -> None:
    assert name in ORACLES, f"add an oracle for the objective '{name}' to tests/contracts/oracles.py"
    cls = find("objective", name)
    text = inspect.getdoc(cls) or ""
    assert summary(cls).endswith((".", ",")), "the first line says what the objective is"
    assert reference(cls), "the docstring names a paper under Reference:"
    assert any(sign in text.split("Reference:")[0] for sign in ("sum_", "||", "log ", "KL(")), "it shows its formula"
    assert "arXiv" in reference(cls) or "doi" in reference(cls)


@every_variant
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


def gradcheck(term: Any, kind: str) -> bool:
    given = case()

    def loss(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        moved = replace(given, hidden=hidden, weight=weight, bias=bias)
        return run(term, moved.student(kind), given.teacher("dense"), chunk_bytes=4 * V * 2)

    return torch.autograd.gradcheck(loss, given.leaves(), atol=1e-7, fast_mode=True)


@pytest.mark.parametrize("term", variants([term for term in TERMS if term.type() not in WEIGHED]))
@both_kinds
def test_gradcheck(term: Any, kind: str) -> None:
    assert gradcheck(term, kind)


@pytest.mark.parametrize("name", WEIGHED)
def test_only_weights_without_gradient_excuse_from_gradcheck(name: str) -> None:
    with pytest.raises(GradcheckError):
        gradcheck(build("objective", {"type": name}), "head")


def test_second_derivatives_are_refused_not_wrong() -> None:
    given = case()
    loss = run(build("objective", "cross_entropy"), given.student("head"), None).square()
    (gradient,) = torch.autograd.grad(loss, given.hidden, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.square().sum().backward()


@pytest.mark.parametrize("term", variants([term for term in DIVERGENCES if term.type() not in NOT_ZERO]))
@both_kinds
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_identical_models_do_not_differ(term: Any, kind: str, dtype: torch.dtype) -> None:
    given = case(dtype, rows=50)
    hidden = (3 * given.hidden).detach().requires_grad_()  # logits of about 10, as trained models have
    mine = replace(given, hidden=hidden).student(kind)
    rounded_otherwise = Dense(torch.einsum("btd,vd->btv", hidden.flip(-1), given.weight.flip(-1)) + given.bias)
    hottest = getattr(term.temperature, "value", 10.0)
    assert abs(run(term, mine, rounded_otherwise)) < 1e-6 * max(1, hottest) * (LABELS != -100).sum()
    loss = run(term, mine, mine)  # bit by bit: total variation has a kink where both are the same
    assert abs(loss) < 1e-6 * max(1, hottest)
    zero = 10 * torch.finfo(dtype).eps * hottest * hidden.abs().max()
    assert all(g.abs().max() < zero for g in gradients(loss, [hidden, given.weight, given.bias]))


@pytest.mark.parametrize("name", NOT_ZERO)
def test_terms_that_do_not_vanish_say_so(name: str) -> None:
    given = case()
    assert run(build("objective", {"type": name}), given.student("head"), Dense(given.logits().detach())) > 1e-3


@every_variant
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


@every_variant
@pytest.mark.parametrize("way", ["weights", "autocast"])
def test_bfloat16_is_no_worse_than_the_naive_form(term: Any, way: str) -> None:
    """Against float64 on the same rounded inputs; the naive form makes its logits in bf16 and is exact from there.

    A little worse is allowed, since every chunk's share of the head's gradient is rounded once.
    """
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
    assert (ours - reference).abs() <= 1.3 * (theirs - reference).abs() + 1e-5 * reference.abs()
    for mine, plain, true in zip(gradients(ours, leaves), gradients(theirs, leaves), wanted, strict=True):
        assert mine.dtype == dtype
        assert (mine - true).norm() <= 1.3 * (plain - true).norm() + 1e-5 * true.norm()


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
