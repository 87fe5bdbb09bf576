"""Reading what goes in and out of a model's modules."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from limbeck.core.errors import ModelError
from limbeck.models.taps import Tap, Taps
from tests.models.conftest import batch_of, new


class Pair(nn.Module):
    def forward(self, x: torch.Tensor, *, scale: float = 1.0) -> tuple[None, torch.Tensor, torch.Tensor]:
        return None, x * scale, x + 1


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.pair, self.idle = nn.Linear(2, 3), Pair(), nn.Linear(1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.pair(self.first(x), scale=2.0)[1]


def read(model: nn.Module, *paths: str) -> dict[str, torch.Tensor]:
    with Taps(model, paths) as taps:
        model(torch.ones(1, 2))
    return taps.features()


def test_output_input_and_place_in_a_tuple() -> None:
    model = Model()
    found = read(model, "first", "first:input", "pair", "pair:output.2", "pair:input", "")
    first = model.first(torch.ones(1, 2))
    torch.testing.assert_close(found["first"], first)
    torch.testing.assert_close(found["first:input"], torch.ones(1, 2))
    torch.testing.assert_close(found["pair"], first * 2)
    torch.testing.assert_close(found["pair:output.2"], first + 1)
    torch.testing.assert_close(found["pair:input"], first)
    torch.testing.assert_close(found[""], first * 2)


def test_an_input_that_is_given_by_name() -> None:
    model = new("bert", num_hidden_layers=2)
    batch = batch_of(model)
    path = "bert.encoder.layer.0.attention.self"
    with Taps(model, [f"{path}:input", "bert.embeddings"]) as taps:
        model(**batch.inputs)
    found = taps.features()
    torch.testing.assert_close(found[f"{path}:input"], found["bert.embeddings"])


def test_gradients_pass_and_hooks_go() -> None:
    model = Model()
    read(model, "first")["first"].sum().backward()
    assert model.first.weight.grad is not None
    assert not model.first._forward_hooks
    with pytest.raises(RuntimeError, match="boom"), Taps(model, ["first"]):
        raise RuntimeError("boom")
    assert not model.first._forward_hooks


def test_what_is_not_there_is_told_with_what_is() -> None:
    model = new("bert", num_hidden_layers=2)
    with pytest.raises(ModelError, match=r"(?s)no layer 'bert.encoder.layer.9'.*bert.encoder.layer.\{0..1\}"):
        Taps(model, ["bert.encoder.layer.9"])
    with pytest.raises(ModelError, match=r"did you mean 'bert\.encoder'"):
        Taps(model, ["bert.encodr"])
    with pytest.raises(ModelError, match="no place in a model"):
        Tap.parse("first:out")


def test_a_module_that_is_not_run_or_run_twice_is_refused() -> None:
    model = Model()
    with pytest.raises(ModelError, match="'idle' was run 0 times"):
        read(model, "idle")
    with Taps(model, ["first"]) as taps:
        model(torch.ones(1, 2))
        model(torch.ones(1, 2))
    with pytest.raises(ModelError, match="run 2 times"):
        taps.features()


def test_a_place_without_a_tensor_is_told() -> None:
    with pytest.raises(ModelError, match=r"(?s)no tensor at 'output.0'.*0: NoneType, 1: \(1, 3\)"):
        read(Model(), "pair:output.0")


def test_attention_maps_need_eager_attention() -> None:
    path = "bert.encoder.layer.0.attention.self:output.1"
    model = new("bert", num_hidden_layers=2)
    model.set_attn_implementation("sdpa")
    batch = batch_of(model)
    with pytest.raises(ModelError, match="attn_implementation: eager"), Taps(model, [path]):
        model(**batch.inputs)
    model.set_attn_implementation("eager")
    with Taps(model, [path]) as taps:
        model(**batch.inputs)
    maps = taps.features()[path]
    torch.testing.assert_close(maps.sum(-1), torch.ones(maps.shape[:-1]))


def test_hooks_do_not_see_the_second_pass_of_checkpointing() -> None:
    model = new("bert", num_hidden_layers=2).train()
    model.activation_checkpointing_enable({"use_reentrant": False})
    batch = batch_of(model)
    with Taps(model, ["bert.encoder.layer.0"]) as taps:
        logits = model(**batch.inputs).logits
    (logits.sum() + taps.features()["bert.encoder.layer.0"].sum()).backward()
    assert model.bert.embeddings.word_embeddings.weight.grad is not None
