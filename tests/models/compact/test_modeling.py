"""Compact models as Hugging Face models: config, save, load, generate, heads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors import safe_open

import limbeck.models.compact as package
from limbeck.core.errors import ModelError
from limbeck.core.recipe import Model
from limbeck.core.types import Batch, Head, Needs
from limbeck.models.compact import CompactConfig, CompactForCausalLM, CompactForSequenceClassification
from limbeck.models.heads import check_head, signal
from limbeck.models.load import load_model
from tests.models.compact.conftest import FIELDS, hidden, ids

AUTO = {True: "AutoModelForCausalLM", False: "AutoModelForSequenceClassification"}


@pytest.mark.parametrize("is_decoder", [True, False])
def test_a_recipe_makes_one(is_decoder: bool) -> None:
    spec = Model(config={"model_type": "compact", **FIELDS, "is_decoder": is_decoder}, tokenizer="any")
    model = load_model(spec, AUTO[is_decoder], settings={"vocab_size": 40})
    assert type(model) is (CompactForCausalLM if is_decoder else CompactForSequenceClassification)
    assert model.model.layers[0].self_attn.q_proj.weight.shape == (16, 16)
    assert model.model.layers[0].self_attn.k_proj.weight.shape == (8, 16)


def test_unknown_fields_are_refused() -> None:
    with pytest.raises(ModelError, match=r"did you mean 'segment_length'"):
        load_model(
            Model(config={"model_type": "compact", "segment_size": 4}, tokenizer="any"), AUTO[False], settings={}
        )


@pytest.mark.parametrize(
    "fields",
    [
        {"embedding_size": 17},
        {"embedding_size": 0},
        {"num_attention_heads": 3},
        {"num_key_value_heads": 3},
        {"segment_length": -1},
        {"summary_tokens": -1},
        {"relative_attention_num_buckets": 7},
        {"relative_attention_max_distance": 8},
        {"num_hidden_layers": 0},
        {"vocab_size": 0},
    ],
)
def test_sizes_that_do_not_fit_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="no compact model can be made") as caught:
        CompactConfig(**{**FIELDS, **fields})
    assert caught.value.got is not None


@pytest.mark.parametrize("is_decoder", [True, False])
def test_the_wrong_kind_is_refused(is_decoder: bool) -> None:
    spec = Model(config={"model_type": "compact", **FIELDS, "is_decoder": is_decoder}, tokenizer="any")
    with pytest.raises(ModelError, match=r"fix: is_decoder: "):
        load_model(spec, AUTO[not is_decoder], settings={})


def fields_of(model: Any) -> dict[str, Any]:
    """What a config says of the model, not of the file that it was read from."""
    skip = ("dtype", "transformers_version")
    return {name: getattr(model.config, name) for name in CompactConfig.__dataclass_fields__ if name not in skip}


@pytest.mark.parametrize("is_decoder", [True, False])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"tie_word_embeddings": False},
        {"embedding_size": None, "gated_mlp": False, "hidden_act": "gelu", "type_vocab_size": 2},
        {"qk_norm": True, "norm_first": False, "norm_type": "layer_norm", "mlp_bias": True, "head_dim": 6},
        {"segment_length": 0, "num_key_value_heads": 4},
    ],
    ids=["plain", "untied", "wide", "post-norm", "full"],
)
def test_a_model_is_the_same_after_saving(
    make: Callable[..., Any], is_decoder: bool, fields: dict[str, Any], tmp_path: Path
) -> None:
    model = make(is_decoder, **fields).float()
    model.save_pretrained(tmp_path)
    again = getattr(transformers, AUTO[is_decoder]).from_pretrained(tmp_path).eval()
    assert type(again) is type(model)
    assert fields_of(again) == fields_of(model)
    assert torch.equal(again(ids(2, 13)).logits, model(ids(2, 13)).logits)
    assert {p.name for p in tmp_path.iterdir() if p.suffix not in (".json", ".safetensors")} == set()
    if is_decoder:
        tied = model.config.tie_word_embeddings
        assert (again.lm_head.weight is again.model.embed_tokens.weight) == tied
        with safe_open(tmp_path / "model.safetensors", "pt") as file:
            assert ("lm_head.weight" in file.keys()) == (not tied)  # noqa: SIM118 (not a dict)


def test_registering_twice_is_harmless() -> None:
    import importlib

    importlib.reload(package)
    assert type(transformers.AutoConfig.for_model("compact")) is CompactConfig


@pytest.mark.parametrize("fields", [{}, {"embedding_size": None}, {"tie_word_embeddings": False}])
def test_the_head_is_the_output_matrix(make: Callable[..., Any], fields: dict[str, Any]) -> None:
    model = make(**fields).float()
    mask = torch.ones(2, 13, dtype=torch.long)
    mask[1, 6:] = 0
    batch = Batch(("a", "b"), {"input_ids": ids(2, 13), "attention_mask": mask}, ids(2, 13))
    check_head(model, batch, "compact")
    told = signal(model, batch, Needs(dist=True)).dist
    assert isinstance(told, Head)
    assert told.hidden.shape[-1] == model.config.embedding_size
    assert isinstance(model.get_output_embeddings(), torch.nn.Linear)


def test_hidden_states_have_the_hidden_width(make: Callable[..., Any]) -> None:
    out = make()(ids(2, 13), output_hidden_states=True, use_cache=False)
    assert [tuple(h.shape) for h in out.hidden_states] == [(2, 13, 16)] * 3
    with pytest.raises(ModelError, match="no attention maps"):
        make()(ids(2, 13), output_attentions=True)


@pytest.mark.parametrize("segment", [0, 1, 4, 7])
@pytest.mark.parametrize("first", [1, 3, 4, 8, 9])
def test_a_cache_changes_nothing(make: Callable[..., Any], segment: int, first: int) -> None:
    model, tokens = make(segment_length=segment), ids(2, 23)
    whole = hidden(model, tokens)
    with torch.no_grad():
        out = model.model(tokens[:, :first], use_cache=True)
        parts, at = [out.last_hidden_state], first
        while at < 23:  # one token, then three, then one
            size = 1 if at % 2 else 3
            out = model.model(tokens[:, at : at + size], past_key_values=out.past_key_values, use_cache=True)
            parts.append(out.last_hidden_state)
            at += size
    torch.testing.assert_close(torch.cat(parts, 1), whole)
    kept = out.past_key_values.layers[0].keys.shape[2]
    assert kept == 23 if segment == 0 else kept <= 2 * segment
    assert out.past_key_values.get_seq_length() == 23


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("summary_tokens", [0, 2])
def test_a_cache_holds_rows_of_different_lengths(make: Callable[..., Any], side: str, summary_tokens: int) -> None:
    model, tokens, lengths = make(summary_tokens=summary_tokens), ids(3, 30), [9, 4, 2]
    batch, mask = torch.full((3, 9), 7), torch.zeros(3, 9, dtype=torch.long)
    for i, n in enumerate(lengths):
        part = slice(0, n) if side == "right" else slice(9 - n, 9)
        batch[i, part], mask[i, part] = tokens[i, :n], 1
    with torch.no_grad():
        past = model.model(batch, attention_mask=mask, use_cache=True).past_key_values
        for step in range(12):
            mask = torch.cat([mask, torch.ones(3, 1, dtype=torch.long)], 1)
            new = torch.stack([tokens[i, n + step] for i, n in enumerate(lengths)])[:, None]
            out = model.model(new, attention_mask=mask, past_key_values=past, use_cache=True).last_hidden_state
            for i, n in enumerate(lengths):
                torch.testing.assert_close(out[i, 0], hidden(model, tokens[i : i + 1, : n + step + 1])[0, -1])


@pytest.mark.parametrize("how", [{"do_sample": False}, {"num_beams": 3}, {"do_sample": False, "left": True}])
def test_generation_equals_recomputation(make: Callable[..., Any], how: dict[str, Any]) -> None:
    model, tokens, how = make(), ids(2, 6), dict(how)
    mask = torch.ones_like(tokens)
    if how.pop("left", False):
        mask[1, :3] = 0
    more = {"max_new_tokens": 14, "eos_token_id": None, "attention_mask": mask, **how}
    quick, slow = (model.generate(tokens, use_cache=cached, **more) for cached in (True, False))
    assert quick.shape == (2, 20)
    assert torch.equal(quick, slow)
    assert len(set(quick[0, 6:].tolist())) > 2


def test_padding_in_the_middle_of_a_text_is_refused(make: Callable[..., Any]) -> None:
    model = make()
    past = model.model(ids(2, 5), use_cache=True).past_key_values
    mask = torch.ones(2, 8, dtype=torch.long)
    mask[1, 5] = 0
    with pytest.raises(ModelError, match="padding among tokens"):
        model.model(ids(2, 3), attention_mask=mask, past_key_values=past)


def test_wrong_inputs_are_refused(make: Callable[..., Any]) -> None:
    model = make()
    with pytest.raises(ModelError, match="either `input_ids` or `inputs_embeds`"):
        model.model()
    with pytest.raises(ModelError, match="needs a padding mask"):
        model.model(ids(1, 5), attention_mask=torch.ones(1, 1, 5, 5))
    with pytest.raises(ModelError, match="DynamicCache for a decoder"):
        model.model(ids(1, 5), past_key_values=transformers.DynamicCache())


def test_losses_are_the_usual_ones(make: Callable[..., Any]) -> None:
    model, tokens = make(), ids(2, 9)
    out = model(tokens, labels=tokens, use_cache=False)
    expected = torch.nn.functional.cross_entropy(out.logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
    torch.testing.assert_close(out.loss.double(), expected, rtol=1e-5, atol=1e-5)
    model, labels = make(is_decoder=False), torch.tensor([0, 1])
    out = model(tokens, labels=labels)
    torch.testing.assert_close(out.loss, torch.nn.functional.cross_entropy(out.logits, labels))


def test_new_weights_are_as_large_as_the_width_asks_for(make: Callable[..., Any]) -> None:
    config = CompactConfig(hidden_size=64, num_attention_heads=2)
    assert config.initializer_range == 64**-0.5
    model = CompactForSequenceClassification(config)
    assert model.model.layers[0].mlp.up_proj.weight.std().item() == pytest.approx(64**-0.5, rel=0.05)
    assert model.model.layers[0].self_attn.summary.query.std().item() == pytest.approx(1, rel=0.2)
    assert make(initializer_range=0.5).config.initializer_range == 0.5
