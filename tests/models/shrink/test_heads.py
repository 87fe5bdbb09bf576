"""Fewer heads, smaller heads, fewer units: what was not needed can go without a trace."""

from __future__ import annotations

import pytest
import torch

from limbeck.core.errors import ModelError
from limbeck.models.shrink import keep_heads, keep_units
from limbeck.models.shrink.draft import ANATOMIES, Draft
from limbeck.models.shrink.heads import cut_heads, narrow_heads
from tests.models.conftest import inputs_of, new

GROUPED = {"num_attention_heads": 4, "num_key_value_heads": 2}
SAME = {"rtol": 1e-4, "atol": 1e-4}


def stir(model: torch.nn.Module) -> torch.nn.Module:
    """Give norms and biases values that a wrong row would show in."""
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 1:
                weight.add_(torch.randn_like(weight) * 0.3)
    return model


@pytest.mark.parametrize("name", ["llama", "mistral", "qwen2", "qwen3"])
@pytest.mark.parametrize("gone", [0, 1])
def test_a_group_that_writes_nothing_can_go(name: str, gone: int) -> None:
    """Qwen2's config has no head size of its own, and would derive a wrong one from fewer heads."""
    given = {**GROUPED, "head_dim": 8} if name != "qwen2" else GROUPED
    size = 4 if name == "qwen2" else 8
    teacher = stir(new("llama", model_type=name, **given))
    for layer in teacher.model.layers:
        layer.self_attn.o_proj.weight.data[:, 2 * size * gone : 2 * size * (gone + 1)] = 0
    student = keep_heads(teacher, 2).eval()
    config = student.config
    assert (config.num_attention_heads, config.num_key_value_heads, config.head_dim) == (2, 1, size)
    assert student.model.layers[0].self_attn.k_proj.weight.shape == (size, 16)
    inputs = inputs_of(teacher)
    torch.testing.assert_close(student(**inputs).logits, teacher(**inputs).logits, **SAME)


def test_each_layer_keeps_heads_of_its_own_and_importance_can_be_given() -> None:
    teacher = stir(new("llama", num_attention_heads=4, num_key_value_heads=4, head_dim=4))
    importance = torch.tensor([[0, 3, 1, 2], [9, 0, 0, 8], [1, 2, 3, 4], [4, 3, 2, 1.0]])
    kept = [[1, 3], [0, 3], [2, 3], [0, 1]]
    student = keep_heads(teacher, 2, importance)
    for i, heads in enumerate(kept):
        old, given = teacher.model.layers[i].self_attn, student.model.layers[i].self_attn
        rows = [4 * h + j for h in heads for j in range(4)]
        assert torch.equal(given.q_proj.weight, old.q_proj.weight[rows])
        assert torch.equal(given.o_proj.weight, old.o_proj.weight[:, rows])


def test_heads_that_do_not_fit_are_refused() -> None:
    for n in (0, 1, 3, 6):
        with pytest.raises(ModelError, match=r"num_attention_heads does not fit Llama(.|\n)*multiples of 2 up to 4"):
            keep_heads(new("llama", **GROUPED), n)
    with pytest.raises(ModelError, match=r"heads x head size is the hidden size(.|\n)*hidden_size=8"):
        keep_heads(new("bert"), 1)
    with pytest.raises(ModelError, match=r"GPT2(.|\n)*by layers and by vocabulary only(.|\n)*bert, roberta"):
        keep_heads(new("gpt2"), 1)


@pytest.mark.parametrize("name", ["bert", "llama", "qwen3"])
def test_units_that_do_nothing_can_go(name: str) -> None:
    teacher = stir(new(name))
    spare = torch.tensor([0, 5, 6, 23])
    names = Draft.of(teacher).names("output.dense" if name == "bert" else "mlp.down_proj")
    for down in names:
        teacher.get_submodule(down).weight.data[:, spare] = 0
    student = keep_units(teacher, 20).eval()
    assert student.config.intermediate_size == 20
    inputs = inputs_of(teacher)
    torch.testing.assert_close(student(**inputs).logits, teacher(**inputs).logits, **SAME)
    with pytest.raises(ModelError, match="numbers from 1 to 24"):
        keep_units(teacher, 25)


def test_heads_of_low_rank_can_be_narrow() -> None:
    """The products, biases included, are what counts: they are equal where their rank allows it."""
    teacher = stir(new("bert"))
    for layer in teacher.bert.encoder.layer:
        attention = layer.attention.self
        for part in (attention.query, attention.value):  # rank 4 in each of the two heads, bias included
            joint = torch.cat([part.weight.data, part.bias.data[:, None]], dim=1).view(2, 8, 17)
            joint = (torch.randn(2, 8, 4) @ joint[:, :4]).view(16, 17)
            part.weight.data, part.bias.data = joint[:, :-1].contiguous(), joint[:, -1].contiguous()
    draft = Draft.of(teacher)
    narrow_heads(draft, 4)
    wide = Draft.of(teacher)
    x, y = torch.randn(2, 16, dtype=torch.float64)
    for layer in draft.layers():
        for first, second in (("query", "key"),):
            scores = [
                [
                    (d.matrix(f"{layer}attention.self.{n}") @ z + d.bias(f"{layer}attention.self.{n}")).view(2, -1)
                    for n, z in ((first, x), (second, y))
                ]
                for d in (wide, draft)
            ]
            old, got = ((q * k).sum(1) / q.shape[1] ** 0.5 for q, k in scores)
            torch.testing.assert_close(got, old, **SAME)
        writes = [
            d.matrix(f"{layer}attention.output.dense")
            @ (d.matrix(f"{layer}attention.self.value") @ x + d.bias(f"{layer}attention.self.value"))
            for d in (wide, draft)
        ]
        torch.testing.assert_close(writes[1], writes[0], **SAME)
    with pytest.raises(ModelError, match=r"cannot be made larger(.|\n)*at most 4"):
        narrow_heads(draft, 8)


def test_the_importance_is_the_norm_of_what_a_head_writes() -> None:
    from limbeck.models.shrink.heads import _written

    draft = Draft.of(stir(new("llama", **GROUPED, head_dim=8)))
    value, out = (draft.matrix(f"model.layers.1.self_attn.{n}") for n in ("v_proj", "o_proj"))
    brute = [
        (out[:, 8 * h : 8 * h + 8] @ value[8 * (h // 2) : 8 * (h // 2) + 8]).norm() for h in range(4)
    ]  # queries 0 and 1 share the first value head
    torch.testing.assert_close(_written(draft, 1, 2, 8), torch.stack(brute))


def test_every_known_architecture_is_what_its_anatomy_says() -> None:
    for name in ANATOMIES:
        small = "bert" if name in ("bert", "roberta", "xlm-roberta") else "llama"
        draft = Draft.of(new(small, model_type=name))
        cut_heads(draft, draft.config.num_attention_heads)
        assert draft.build().config.model_type == name
