"""DIST over the samples of a batch.

Shapes: B samples, C classes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from limbeck.core.errors import RecipeError
from limbeck.core.parts import build
from limbeck.core.types import Batch, Dense, Mixture, TopK
from limbeck.objectives import Context, FeatureLoss
from limbeck.objectives.relational.dist_intra import DISTIntra
from tests.contracts.oracles import pearson, softmax

B, C = 6, 4


def logits(seed: int) -> Tensor:
    return torch.randn(B, C, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def context(said: Any, told: Any, **more: Any) -> Context:
    labels = more.pop("labels", torch.arange(B) % C)
    return Context(Batch(tuple(map(str, range(len(labels)))), {}, labels), said=said, told=told, **more)


def loss(temperature: float = 1.0) -> FeatureLoss:
    term = build("objective", {"type": "dist_intra", "temperature": temperature})
    assert isinstance(term, DISTIntra)
    return term.build(())


def naive(mine: Tensor, theirs: Tensor, temperature: float = 1.0) -> Tensor:
    q, p = softmax(mine, temperature), softmax(theirs, temperature)
    return 1 - sum(pearson(q[:, c], p[:, c]) for c in range(mine.shape[1])) / mine.shape[1]


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_equals_its_oracle(temperature: float) -> None:
    mine, theirs = logits(0).requires_grad_(), logits(1)
    value = loss(temperature)([], [], context(Dense(mine), Dense(theirs)))
    wanted = naive(mine, theirs, temperature)
    torch.testing.assert_close(value, wanted)
    torch.testing.assert_close(torch.autograd.grad(value, mine), torch.autograd.grad(wanted, mine))
    assert torch.autograd.gradcheck(lambda z: loss(temperature)([], [], context(Dense(z), Dense(theirs))), [mine])


def test_identical_models_do_not_differ() -> None:
    assert abs(loss()([], [], context(Dense(logits(0)), Dense(logits(0))))) < 1e-12


def test_rows_without_a_label_and_without_a_teacher_are_left_out() -> None:
    mine, theirs = logits(0).requires_grad_(), logits(1)
    labels, weights = torch.tensor([0, -100, 2, 3, 0, 1]), torch.tensor([1.0, 1, 1, 0, 1, 1])
    value = loss()([], [], context(Dense(mine), Dense(theirs), labels=labels, weights=weights))
    kept = [0, 2, 4, 5]
    torch.testing.assert_close(value, naive(mine[kept], theirs[kept]))
    (gradient,) = torch.autograd.grad(value, mine)
    assert (gradient[[1, 3]] == 0).all()
    assert (gradient[kept] != 0).any()


def test_the_teachers_say_is_a_factor() -> None:
    given = context(Dense(logits(0)), Dense(logits(1)))
    half = replace(given, weights=torch.full((B,), 0.5, dtype=torch.float64))
    torch.testing.assert_close(loss()([], [], half), 0.5 * loss()([], [], given))


def test_an_ensemble_is_its_mean() -> None:
    members = (Dense(logits(1)), Dense(logits(2)))
    even = Mixture(members, torch.full((B, 2), 0.5, dtype=torch.float64).log())
    mean = Dense(torch.stack([m.logits.softmax(1) for m in members]).mean(0).log())
    mine = Dense(logits(0))
    torch.testing.assert_close(loss()([], [], context(mine, even)), loss()([], [], context(mine, mean)))


def test_the_teacher_gets_no_gradient() -> None:
    mine, theirs = logits(0).requires_grad_(), logits(1).requires_grad_()
    loss()([], [], context(Dense(mine), Dense(theirs))).backward()
    assert theirs.grad is None
    assert mine.grad is not None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_extreme_logits(dtype: torch.dtype) -> None:
    mine = (logits(0).sign() * 1e4).to(dtype).requires_grad_()
    value = loss()([], [], context(Dense(mine), Dense((logits(1).sign() * 1e4).to(dtype))))
    value.backward()
    assert torch.isfinite(value)
    assert mine.grad is not None
    assert torch.isfinite(mine.grad).all()


def test_too_few_samples_are_refused_in_training_only() -> None:
    one = context(Dense(logits(0)[:1]), Dense(logits(1)[:1]), labels=torch.tensor([0]))
    with pytest.raises(RecipeError, match="with each other"):
        loss()([], [], one)
    assert loss().eval()([], [], one) == 0


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(RecipeError, match="4 classes of the student, 3"):
        loss()([], [], context(Dense(logits(0)), Dense(logits(1)[:, :3])))
    few = TopK(torch.zeros(B, 1, dtype=torch.long), torch.zeros(B, 1), torch.zeros(B))
    with pytest.raises(RecipeError, match="TopK"):
        loss()([], [], context(Dense(logits(0)), few))


def test_rare_classes_keep_their_correlation() -> None:
    """Probabilities of 1e-9 and below are as well told apart as others."""
    rare = logits(0) - torch.tensor([0.0, 0.0, 25.0, 60.0], dtype=torch.float64)
    for dtype in (torch.float32, torch.float64):
        mine = rare.to(dtype).requires_grad_()
        value = loss()([], [], context(Dense(mine), Dense(rare.to(dtype))))
        assert abs(value) < 1e-5
        assert torch.autograd.grad(value, mine)[0].abs().max() < 1e-5
