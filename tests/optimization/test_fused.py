"""Linear layers that read the same, as one: the same numbers, one product for several."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from limbeck.core.parts import build
from limbeck.core.recipe import Model
from limbeck.models.fused import fuse, groups
from limbeck.models.load import load_model
from tests.runtime.students import BERT, LANGUAGE, QWEN, RESNET, TEXT, VIT

PICTURE = {"type": "image-classification"}


def model(task: dict[str, Any], config: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    auto_class = build("task", task).auto_class  # type: ignore[attr-defined]
    vocabulary = {} if task is PICTURE else {"vocab_size": 40}
    return load_model(Model(config={**config, **vocabulary}), auto_class, settings={}).eval()


def given(task: dict[str, Any]) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    if task is PICTURE:
        return {"pixel_values": torch.randn(2, 1, 8, 8, generator=draw)}
    return {"input_ids": torch.randint(3, 40, (2, 7), generator=draw), "attention_mask": torch.ones(2, 7).long()}


def products(network: nn.Module, inputs: dict[str, torch.Tensor]) -> int:
    """Calls of linear layers."""
    count = 0

    def called(*_: Any) -> None:
        nonlocal count
        count += 1

    handles = [each.register_forward_hook(called) for each in network.modules() if isinstance(each, nn.Linear)]
    network(**inputs)
    for handle in handles:
        handle.remove()
    return count


@pytest.mark.parametrize(
    ("task", "config", "kind", "fewer"),
    [(TEXT, BERT, "qkv", 2), (PICTURE, VIT, "qkv", 2), (LANGUAGE, QWEN, "qkv", 2), (LANGUAGE, QWEN, "gate_up", 1)],
    ids=["bert", "vit", "qwen3", "qwen3-mlp"],
)
@torch.no_grad()
def test_a_merged_model_says_the_same_with_fewer_products(
    task: dict[str, Any], config: dict[str, Any], kind: str, fewer: int
) -> None:
    network, inputs = model(task, config), given(task)
    before, calls, weights = network(**inputs).logits, products(network, inputs), network.num_parameters()

    assert fuse(network, kind) == 2  # one in each layer

    torch.testing.assert_close(network(**inputs).logits, before, rtol=1e-5, atol=1e-6)
    assert products(network, inputs) == calls - 2 * fewer
    assert network.num_parameters() == weights
    assert not list(groups(network, kind))


@torch.no_grad()
def test_nothing_of_one_input_is_said_of_another() -> None:
    layer: Any = nn.Module()
    for name, width in (("query", 4), ("key", 4), ("value", 6)):
        layer.add_module(name, nn.Linear(3, width, bias=name != "key"))
    wanted = {name: (part.weight.clone(), part.bias) for name, part in layer.named_children()}
    fuse(layer, "qkv")
    here, there = torch.randn(2, 5, 3), torch.randn(2, 5, 3)
    for x, order in ((here, "query key value"), (there, "value key query"), (here, "query"), (there, "key value")):
        for name in order.split():
            weight, bias = wanted[name]
            torch.testing.assert_close(getattr(layer, name)(x), nn.functional.linear(x, weight, bias))
    assert layer.value.whole.read is None


def test_layers_that_do_more_than_multiply_are_left() -> None:
    class Adapted(nn.Linear):
        pass

    layer = nn.ModuleDict({"q_proj": nn.Linear(4, 4), "k_proj": Adapted(4, 4), "v_proj": nn.Linear(4, 4)})
    narrow = nn.ModuleDict({"q_proj": nn.Linear(4, 4), "k_proj": nn.Linear(3, 4), "v_proj": nn.Linear(4, 4)})
    both = nn.ModuleList([layer, narrow, model(PICTURE, RESNET)])
    assert fuse(both, "qkv") == 0
    assert isinstance(layer["q_proj"], nn.Linear)


@torch.no_grad()
def test_folders_are_as_before(tmp_path: Path) -> None:
    """Only a loaded model is changed: its folder keeps names that every library knows."""
    network = model(LANGUAGE, QWEN)
    network.save_pretrained(tmp_path)
    again = load_model(Model(model=str(tmp_path)), "AutoModelForCausalLM", settings={}).eval()
    fuse(again, "qkv")
    inputs = given(LANGUAGE)
    torch.testing.assert_close(again(**inputs).logits, network(**inputs).logits, rtol=1e-5, atol=1e-6)
