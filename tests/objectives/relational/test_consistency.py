"""Consistency between views of a sample: formula, gradients, units, and what it refuses.

Shapes: M samples, W views, B = W M rows, C classes.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from limbeck.core.errors import RecipeError
from limbeck.core.parts import build
from limbeck.core.types import Batch, Dense, Head, Mixture
from limbeck.objectives.base import Context

M, C = 4, 5


def make(**fields: Any) -> Any:
    return build("objective", {"type": "consistency", **fields})


def value(term: Any, logits_BC: Tensor, told_BC: Tensor | None = None, views: int = 2, **context: Any) -> Tensor:
    labels = torch.zeros(len(logits_BC), dtype=torch.long)
    batch = Batch(tuple(map(str, range(len(logits_BC)))), {}, labels, views=views)
    told = None if told_BC is None else Dense(told_BC)
    return term.build(())([], [], Context(batch, said=Dense(logits_BC), told=told, **context))


def logits(views: int = 2, seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    return torch.randn(views * M, C, dtype=torch.float64, requires_grad=True)


def kl(p_MC: Tensor, q_MC: Tensor) -> Tensor:
    """The oracle: from probabilities, a sample at a time."""
    return torch.stack([sum(p * (p / q).log() for p, q in zip(ps, qs, strict=True)) for ps, qs in zip(p_MC, q_MC)])  # type: ignore[misc]  # noqa: B905


def expected(to: str, logits_BC: Tensor, told_BC: Tensor, views: int, temperature: float) -> Tensor:
    mine = [
        part.div(temperature).exp() / part.div(temperature).exp().sum(1, keepdim=True)
        for part in logits_BC.chunk(views)
    ]
    theirs = torch.softmax(told_BC[:M] / temperature, 1)
    if to == "each_other":
        pairs = [(kl(p, q) + kl(q, p)) / 2 for p, q in combinations(mine, 2)]
    else:
        target = theirs if to == "teacher" else mine[0].detach()
        pairs = [kl(target, other) for other in mine[1:]]
    # A mean over views, for each sample; and the sum counts every row once.
    return temperature**2 * torch.stack(pairs).mean(0).sum() * views


@pytest.mark.parametrize("to", ["teacher", "student", "each_other"])
@pytest.mark.parametrize("views", [2, 3])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_value_and_gradients(to: str, views: int, temperature: float) -> None:
    given_BC, told_BC = logits(views), logits(views, seed=1)
    term = make(to=to, temperature=temperature)
    got, wanted = value(term, given_BC, told_BC, views), expected(to, given_BC, told_BC, views, temperature)
    torch.testing.assert_close(got, wanted)
    (mine,), (oracle,) = torch.autograd.grad(got, given_BC, retain_graph=True), torch.autograd.grad(wanted, given_BC)
    torch.testing.assert_close(mine, oracle)
    assert (mine[:M].abs().sum() == 0) == (to != "each_other")  # the first view is followed, and follows nobody
    assert torch.autograd.grad(got, told_BC, allow_unused=True)[0] is None
    if to == "each_other":
        assert gradcheck(lambda x: value(term, x, None, views), given_BC)


@pytest.mark.parametrize("to", ["student", "each_other"])
def test_equal_views_give_zero(to: str) -> None:
    same = logits(1).detach().float()
    assert value(make(to=to), same.repeat(2, 1)).abs() < 1e-6


def test_a_student_that_answers_as_the_teacher_does_on_the_first_view_is_done() -> None:
    told = logits(2)
    assert value(make(), told[:M].detach().repeat(2, 1), told).abs() < 1e-9


def test_samples_add_up() -> None:
    given, told = logits(), logits(seed=1)
    halves = [torch.tensor([0, 1, 4, 5]), torch.tensor([2, 3, 6, 7])]
    for to in ("teacher", "student", "each_other"):
        apart = sum(value(make(to=to), given[rows], told[rows]) for rows in halves)
        torch.testing.assert_close(apart, value(make(to=to), given, told))


def test_what_is_not_sure_does_not_count() -> None:
    told = torch.zeros(2 * M, C, dtype=torch.float64)
    told[1, 2] = 9.0  # sure of one sample only
    given = logits()
    alone = value(make(threshold=0.9), given, told)
    torch.testing.assert_close(alone, value(make(), given[[1, 5]], told[[1, 5]]))
    (gradient,) = torch.autograd.grad(alone, given)
    assert gradient.abs().sum(1).nonzero().flatten().tolist() == [5]


def test_samples_that_the_teacher_was_not_asked_about_do_not_count() -> None:
    given, told, weights = logits(), logits(seed=1), torch.tensor([1.0, 0, 0, 1] * 2)
    some = value(make(), given, told, weights=weights)
    torch.testing.assert_close(some, value(make(), given[[0, 3, 4, 7]], told[[0, 3, 4, 7]]))
    mine = make(to="student")
    torch.testing.assert_close(value(mine, given, weights=weights), value(mine, given))


def test_half_precision_is_compared_in_single() -> None:
    given, told = logits().detach().bfloat16(), logits(seed=1).detach().bfloat16()
    got = value(make(), given, told)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, value(make(), given.float(), told.float()))


def test_extreme_logits_stay_finite() -> None:
    given = (logits().detach().float() * 1e4).requires_grad_()
    for to in ("teacher", "student", "each_other"):
        got = value(make(to=to), given, logits(seed=1).detach().float() * 1e4)
        assert got.isfinite()
        assert torch.autograd.grad(got, given)[0].isfinite().all()


def test_a_mixture_of_teachers_is_one_teacher() -> None:
    given, one, two = logits(), logits(seed=1), logits(seed=2)
    weights = torch.tensor([[0.25, 0.75]] * (2 * M), dtype=torch.float64)
    mixture = Mixture((Dense(one), Dense(two)), weights.log())
    mean = (0.25 * one.softmax(1) + 0.75 * two.softmax(1)).log()
    batch = Batch(("x",) * 2 * M, {}, torch.zeros(2 * M, dtype=torch.long), views=2)
    got = make().build(())([], [], Context(batch, said=Dense(given), told=mixture))
    torch.testing.assert_close(got, value(make(), given, mean))


def test_only_the_teachers_answer_asks_the_teacher() -> None:
    assert make().asks_teacher
    assert not make(to="student").asks_teacher
    assert not make(to="each_other").asks_teacher


def test_refusals() -> None:
    with pytest.raises(RecipeError, match="compares views"):
        value(make(to="student"), logits(1), views=1)
    with pytest.raises(RecipeError, match="no target to be sure"):
        make(to="each_other", threshold=0.5).build(())
    batch = Batch(("x",) * 2, {}, torch.zeros(2, 3, dtype=torch.long), views=2)
    head = Head(torch.zeros(2, 3, 4), torch.zeros(7, 4))
    with pytest.raises(RecipeError, match="allowed: classifiers"):
        make(to="student").build(())([], [], Context(batch, said=head))
