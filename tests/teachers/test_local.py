"""A teacher in this process: frozen, in evaluation mode, in its own precision."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from limbeck.core.types import Batch, Dense, Head, Needs, Signal
from limbeck.models.heads import signal
from limbeck.teachers.local import LocalTeacher
from tests.models.conftest import batch_of, new

ASK = Needs(dist=True)


def values(told: Signal) -> torch.Tensor:
    dist = told.dist
    assert dist is not None
    return dist.logits if isinstance(dist, Dense) else dist.hidden


@pytest.mark.parametrize(("name", "dropout"), [("bert", "hidden_dropout_prob"), ("gpt2", "resid_pdrop")])
def test_dropout_is_off(name: str, dropout: str) -> None:
    model = new(name, **{dropout: 0.5}).train()
    batch = batch_of(model)
    assert not torch.equal(values(signal(model, batch, ASK)), values(signal(model, batch, ASK))), "the test can see it"
    teacher = LocalTeacher(model)
    told = [values(teacher.signal(batch, ASK)) for _ in range(2)]
    assert torch.equal(*told)
    assert not any(module.training for module in teacher.model.modules())


@pytest.mark.parametrize("name", ["bert", "qwen3-tied"])
def test_nothing_of_it_learns(name: str) -> None:
    model = new(name).requires_grad_(True)
    teacher, batch = LocalTeacher(model), batch_of(model)
    assert not any(p.requires_grad for p in teacher.model.parameters())
    dist = teacher.signal(batch, ASK).dist
    for given in (dist.logits,) if isinstance(dist, Dense) else (dist.hidden, dist.weight):  # type: ignore[union-attr]
        assert not given.requires_grad
        assert given.grad_fn is None


@pytest.mark.parametrize("name", ["bert", "qwen3", "vit"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_its_precision_is_its_own(name: str, dtype: torch.dtype) -> None:
    """Under the student's autocast the teacher says the same, bit by bit."""
    teacher = LocalTeacher(new(name).to(dtype))
    batch = batch_of(teacher.model)
    if "pixel_values" in batch.inputs:
        batch = Batch(batch.ids, {"pixel_values": batch.inputs["pixel_values"].to(dtype)}, batch.labels)
    plain = values(teacher.signal(batch, ASK))
    assert plain.dtype == dtype
    with torch.autocast("cpu", torch.bfloat16):
        under = values(teacher.signal(batch, ASK))
        assert torch.is_autocast_enabled("cpu")
    assert under.dtype == dtype
    assert torch.equal(under, plain)


def test_it_gives_what_is_asked() -> None:
    teacher = LocalTeacher(new("qwen3"))
    batch = batch_of(teacher.model)
    assert teacher.signal(batch, Needs()) == Signal()
    dist: Any = teacher.signal(batch, ASK).dist
    assert isinstance(dist, Head)
    torch.testing.assert_close(dist.hidden @ dist.weight.T, teacher.model(**batch.inputs).logits)


def test_a_teacher_can_be_asked_inside_training() -> None:
    """It neither needs gradients to be on nor leaves them off."""
    teacher = LocalTeacher(new("bert"))
    assert torch.is_grad_enabled()
    teacher.signal(batch_of(teacher.model), ASK)
    assert torch.is_grad_enabled()
