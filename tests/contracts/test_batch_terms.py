"""The contract of terms that read a batch as a whole and no teacher's layers. They are found by name.

Shapes: B samples, C classes, T positions.
"""

from __future__ import annotations

import inspect
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from limbeck.core.parts import build, find, names, reference, summary
from limbeck.core.types import Batch, Dense
from limbeck.objectives import Context, FeatureTerm, Layer, Pair
from limbeck.objectives.base import BatchTerm

B, T, C = 4, 3, 5
FOUND = [
    n
    for n in names("objective")
    if issubclass(find("objective", n), BatchTerm) and not issubclass(find("objective", n), FeatureTerm)
]
FIELDS: dict[str, dict[str, Any]] = {"deep_to_shallow": {"layers": ["a"]}}
"""Fields that a term cannot do without."""
NOT_ZERO = {"deep_to_shallow": "its classifiers are new, and a share of the labels is in its target"}
"""Terms that are not 0 where student and teacher say the same, and why."""
DOES_NOT_ADD_UP = {"dist_intra": "samples are compared with each other"}
TEXT = {"likelihood_matching"}
"""Terms over positions; the others are over whole samples."""


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def term(name: str) -> Any:
    return build("objective", {"type": name, **FIELDS.get(name, {})})


def module(name: str) -> Any:
    torch.manual_seed(0)
    layer = Layer("a", ("a",), (torch.Size((B, T)),), SimpleNamespace(num_labels=C))
    pairs = [Pair(layer, None)] if term(name).pairs() else []
    return term(name).build(pairs).double()


def value(
    name: str, said: Tensor, told: Tensor, hidden: Tensor, loss: Any = None, keep: Any = None, **more: Any
) -> Tensor:
    """The term on given answers: views of two samples, texts in two stretches, a layer of the student's."""
    keep = list(range(B)) if keep is None else keep
    shape = (B, T) if name in TEXT else (B,)
    labels = (torch.arange(B * T) % C)[: torch.Size(shape).numel()].reshape(shape)
    labels = more.pop("labels", labels)
    ids = tuple(str(i) for i in keep)
    batch = Batch(ids, {}, labels[keep], views=2 if name == "consistency" else 1)
    if name in TEXT:
        spans = torch.tensor([[0, 0, 1]] * B)[keep]
        batch = replace(batch, spans=spans, teacher=replace(batch, spans=spans))
    context = Context(batch, said=Dense(said[keep]), told=Dense(told[keep]), **more)
    layers = [[hidden[keep]]] if term(name).pairs() else []
    return (loss or module(name))(layers, [], context)


def answers(name: str) -> tuple[Tensor, Tensor, Tensor]:
    shape = (B, T, C) if name in TEXT else (B, C)
    return normal(0, *shape).requires_grad_(), normal(1, *shape), normal(2, B, T).requires_grad_()


every_term = pytest.mark.parametrize("name", FOUND)


def learning(name: str, said: Tensor, hidden: Tensor) -> Tensor:
    """What the term's gradient goes to: the layer where it reads one, else the answers."""
    return hidden if term(name).pairs() else said


@every_term
def test_has_documentation(name: str) -> None:
    cls = find("objective", name)
    assert summary(cls).endswith(".")
    assert any(sign in (inspect.getdoc(cls) or "").split("Reference:")[0] for sign in ("sum_", "||", "KL("))
    assert "arXiv" in reference(cls)


@every_term
def test_gradcheck(name: str) -> None:
    said, told, hidden = answers(name)
    loss = module(name)
    if term(name).pairs():
        assert torch.autograd.gradcheck(lambda x: value(name, said.detach(), told, x, loss), [hidden])
    else:
        assert torch.autograd.gradcheck(lambda x: value(name, x, told, hidden, loss), [said])


@every_term
def test_identical_models_do_not_differ(name: str) -> None:
    if name in NOT_ZERO:
        pytest.skip(NOT_ZERO[name])
    said, _, hidden = answers(name)
    if name == "consistency":
        said = said.detach()[: B // 2].repeat(2, 1).requires_grad_()
    found = value(name, said, said.detach(), hidden)
    assert abs(found) < 1e-9
    assert torch.autograd.grad(found, said)[0].abs().max() < 1e-7


@every_term
def test_the_teacher_gets_no_gradient_and_the_student_does(name: str) -> None:
    said, told, hidden = answers(name)
    told.requires_grad_()
    value(name, said, told, hidden).backward()
    assert told.grad is None
    mine = learning(name, said, hidden).grad
    assert mine is not None
    assert mine.abs().max() > 1e-4


@every_term
def test_micro_batches_add_up_or_the_term_says_that_they_do_not(name: str) -> None:
    said, told, hidden = answers(name)
    loss = module(name)
    halves = [[0, 2], [1, 3]] if name == "consistency" else [[0, 1], [2, 3]]
    parts = sum(value(name, said, told, hidden, loss, keep) for keep in halves)
    same = torch.allclose(value(name, said, told, hidden, loss), torch.as_tensor(parts))
    assert same == term(name).adds_up == (name not in DOES_NOT_ADD_UP)


@every_term
def test_a_sample_of_which_the_teacher_says_nothing_counts_nothing(name: str) -> None:
    if not term(name).asks_teacher:
        pytest.skip("it asks no teacher")
    said, told, hidden = answers(name)
    silent = torch.ones(B, dtype=torch.float64)
    silent[1::2] = 0  # of views, both of a sample
    found = value(name, said, told, hidden, weights=silent)
    (gradient,) = torch.autograd.grad(found, said)
    assert (gradient[1::2] == 0).all()
    assert (gradient[::2] != 0).any()


@every_term
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_extreme_logits(name: str, dtype: torch.dtype) -> None:
    said, told, hidden = ((x.detach().sign() * 1e4).to(dtype) for x in answers(name))
    found = value(name, said.requires_grad_(), told, hidden.requires_grad_(), module(name).float())
    assert found.dtype == torch.float32
    (gradient,) = torch.autograd.grad(found, learning(name, said, hidden))
    assert torch.isfinite(found)
    assert torch.isfinite(gradient).all()
