"""What is taken from a model is what the model says."""

from __future__ import annotations

import pytest
import torch

from limbeck.core.errors import ModelError
from limbeck.core.types import Dense, Head, Needs, Signal
from limbeck.models.heads import check_head, signal
from tests.models.conftest import batch_of, new

ASK = Needs(dist=True)
PLAIN = ["qwen3", "qwen3-tied", "llama", "gpt2", "smollm3"]


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_hidden_times_head_is_the_logits(name: str, dtype: torch.dtype) -> None:
    model = new(name).to(dtype)
    batch = batch_of(model)
    dist = signal(model, batch, ASK).dist
    assert isinstance(dist, Head)
    assert dist.weight is model.get_output_embeddings().weight
    assert dist.hidden.shape == (2, 9, 16)
    logits = torch.nn.functional.linear(dist.hidden, dist.weight, dist.bias)
    torch.testing.assert_close(logits, model(**batch.inputs).logits)
    check_head(model, batch, name)


@pytest.mark.parametrize("name", ["bert", "vit", "resnet"])
def test_classifiers_give_logits(name: str) -> None:
    model = new(name)
    batch = batch_of(model)
    dist = signal(model, batch, ASK).dist
    assert isinstance(dist, Dense)
    torch.testing.assert_close(dist.logits, model(**batch.inputs).logits)
    check_head(model, batch, name)


@pytest.mark.parametrize("name", ["gemma2", "cohere"])
@pytest.mark.parametrize("size", [1.0, 1e-3], ids=["trained", "new"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_logits_changed_after_the_head_are_refused(name: str, size: float, dtype: torch.dtype) -> None:
    """A cap that small logits never reach is found too: training would take them there."""
    model = new(name)
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(size)
    with pytest.raises(ModelError, match=f"tiny {name}(.|\n)*changes its logits after the head"):
        check_head(model.to(dtype), batch_of(model), f"tiny {name}")


def test_the_same_architecture_without_a_cap_passes() -> None:
    model = new("gemma2", final_logit_softcapping=None)
    check_head(model, batch_of(model), "gemma2")


@pytest.mark.parametrize("training", [True, False])
def test_the_check_leaves_no_trace(training: bool) -> None:
    model = new("gpt2").train(training)
    batch = batch_of(model)
    before = model.eval()(**batch.inputs).logits
    check_head(model.train(training), batch, "gpt2")
    assert model.training == training
    torch.testing.assert_close(model.eval()(**batch.inputs).logits, before, rtol=0, atol=0)
    capped = new("gemma2").train(training)
    before = capped.eval()(**batch.inputs).logits
    with pytest.raises(ModelError):
        check_head(capped.train(training), batch, "gemma2")
    assert capped.training == training
    torch.testing.assert_close(capped.eval()(**batch.inputs).logits, before, rtol=0, atol=0)


def test_nothing_is_run_when_nothing_is_asked() -> None:
    model = new("gpt2")
    model.forward = model.get_decoder().forward = None
    assert signal(model, batch_of(model), Needs()) == Signal()


def test_gradients_flow_through_the_signal() -> None:
    model = new("qwen3-tied")
    batch = batch_of(model)
    dist = signal(model, batch, ASK).dist
    assert isinstance(dist, Head)
    (dist.hidden @ dist.weight.T).square().sum().backward()
    found = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    model(**batch.inputs).logits.square().sum().backward()
    torch.testing.assert_close(found, [p.grad for p in model.parameters()], rtol=1e-4, atol=1e-4)
