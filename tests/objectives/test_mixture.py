"""Several teachers in the pass: the mixture of their probabilities, made a chunk at a time."""

from __future__ import annotations

import pytest
import torch

from limbeck.core.types import Dense, Head, Mixture
from limbeck.objectives import distribution_loss
from limbeck.objectives.distribution.kl import KL
from tests.contracts.cases import LABELS, V, case

WEIGHTS = torch.tensor([[0.3, 0.7], [1.0, 0.0]], dtype=torch.float64)


@pytest.mark.parametrize("kind", ["head", "dense"])
@pytest.mark.parametrize("told", ["head", "dense"])
def test_equals_the_mixed_probabilities(kind: str, told: str) -> None:
    given, other = case(), case(seed=1)
    members = (given.teacher(told), other.teacher(told))
    mixture = Mixture(members, WEIGHTS.log())  # type: ignore[arg-type]
    mixed = WEIGHTS[:, None, :1] * given.told().softmax(-1) + WEIGHTS[:, None, 1:] * other.told().softmax(-1)
    for temperature in (1.0, 3.0):
        found, _ = distribution_loss(
            given.student(kind), mixture, LABELS, [KL(temperature=temperature)], [1.0], chunk_bytes=8 * V * 2
        )
        wanted, _ = distribution_loss(
            given.student("dense"), Dense(mixed.log()), LABELS, [KL(temperature=temperature)], [1.0]
        )
        torch.testing.assert_close(found, wanted)
        torch.testing.assert_close(
            torch.autograd.grad(found, given.leaves()), torch.autograd.grad(wanted, given.leaves())
        )


def test_members_of_different_types() -> None:
    """The arrays of one are no place for the other's logits."""
    given, other = case(torch.float32), case(torch.float32, seed=1)
    head = other.teacher("head")
    assert isinstance(head, Head)
    half = Head(head.hidden.bfloat16(), head.weight.bfloat16())
    told = (half.hidden @ half.weight.T).float()
    mixed = WEIGHTS[:, None, :1] * given.told().softmax(-1) + WEIGHTS[:, None, 1:] * told.softmax(-1)
    mixture = Mixture((given.teacher("head"), half), WEIGHTS.log())  # type: ignore[arg-type]
    found, _ = distribution_loss(given.student("head"), mixture, LABELS, [KL()], [1.0])
    wanted, _ = distribution_loss(given.student("dense"), Dense(mixed.log().float()), LABELS, [KL()], [1.0])
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_no_gradient_reaches_a_member() -> None:
    given = case()
    leaves = [given.teacher_hidden.requires_grad_(), given.teacher_weight.requires_grad_()]
    mixture = Mixture((Head(*leaves), Head(*leaves)), WEIGHTS.log())
    distribution_loss(given.student("head"), mixture, LABELS, [KL()], [1.0])[0].backward()
    assert leaves[0].grad is None
    assert given.hidden.grad is not None


def test_samples_nobody_was_asked_about_do_nothing() -> None:
    given = case()
    mixture = Mixture((given.teacher("head"), given.teacher("head")), WEIGHTS.log())  # type: ignore[arg-type]
    say = torch.tensor([0.0, 1.0])
    loss, _ = distribution_loss(given.student("head"), mixture, LABELS, [KL()], [1.0], teacher_weights=say)
    (slopes,) = torch.autograd.grad(loss, given.hidden)
    assert (slopes[0] == 0).all()
    assert slopes[1].abs().sum() > 0
