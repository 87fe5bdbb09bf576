"""The gradient penalty against second derivatives taken exactly."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from accelerate import Accelerator

from limbeck.core.types import Batch, Signal
from limbeck.objectives.distribution.cross_entropy import CrossEntropy
from limbeck.training.distiller import Distiller
from limbeck.training.penalty import penalised_backward
from tests.models.conftest import new


def case(name: str) -> tuple[Any, Batch]:
    torch.manual_seed(0)
    model = new(name).double().eval()
    if name == "vit":
        inputs = {"pixel_values": torch.randn(3, 1, 8, 8, dtype=torch.float64)}
    else:
        inputs = {"input_ids": torch.randint(3, 40, (3, 6)), "attention_mask": torch.ones(3, 6, dtype=torch.long)}
    model.set_attn_implementation("eager")  # fused attention has no second derivative
    return model, Batch(("a", "b", "c"), inputs, torch.tensor([0, 1, 1]))


def exact(model: Any, batch: Batch, penalty: float) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    if "pixel_values" in batch.inputs:
        given = batch.inputs["pixel_values"].clone().requires_grad_()
        logits = model(pixel_values=given).logits
    else:
        given = model.get_input_embeddings()(batch.inputs["input_ids"])
        logits = model(inputs_embeds=given, attention_mask=batch.inputs["attention_mask"]).logits
    loss = torch.nn.functional.cross_entropy(logits, batch.labels)
    (slopes,) = torch.autograd.grad(loss, given, create_graph=True)
    norms = slopes.flatten(1).norm(dim=1).sum()
    names = dict(model.named_parameters())
    found = torch.autograd.grad(loss + penalty * norms, list(names.values()), allow_unused=True)
    return loss, {name: value for name, value in zip(names, found, strict=True) if value is not None}


@pytest.mark.parametrize("name", ["bert", "vit"])
def test_equals_the_exact_second_derivative(name: str) -> None:
    model, batch = case(name)
    wanted_loss, wanted = exact(model, batch, 0.5)
    _, plain = exact(model, batch, 0.0)
    distiller = Distiller(model, [CrossEntropy()])
    call = (batch, Signal(), [1.0], 0.0)
    loss, values = penalised_backward(Accelerator(cpu=True), distiller, model, call, 1 / 3, 0.5)
    torch.testing.assert_close(loss / 3, wanted_loss)
    assert list(values) == ["cross_entropy"]
    for weight, slope in wanted.items():
        found = dict(model.named_parameters())[weight].grad
        share = (slope - plain[weight]).norm()
        assert found is not None
        assert (found - slope).norm() <= 0.03 * share + 1e-5, weight
    assert any((wanted[n] - plain[n]).norm() > 1e-2 for n in wanted), "the penalty is felt"
    hooks = [h for m in model.modules() for h in (*m._forward_hooks.values(), *m._forward_pre_hooks.values())]
    assert not hooks
