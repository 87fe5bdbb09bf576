"""Pretrained models as compact ones: what is copied is the same function where positions do not matter."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

from limbeck.core.errors import ModelError
from limbeck.models.compact import CompactForCausalLM, CompactForSequenceClassification, CompactModel
from limbeck.models.compact.convert import factorise, from_pretrained_model
from tests.models.compact.conftest import ids

_SIZES = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
}
_IDS = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}


def pretrained(kind: str, maker: str, **fields: Any) -> Any:
    torch.manual_seed(0)
    heads = {} if "bert" in kind else {"num_key_value_heads": 1, **_IDS}
    config = transformers.AutoConfig.for_model(kind, **{**_SIZES, **heads, **fields})
    model = getattr(transformers, maker).from_config(config).eval()
    with torch.no_grad():  # biases and norms that say something
        for weight in model.parameters():
            if weight.dim() == 1:
                weight.add_(0.3 * torch.randn_like(weight))
    return model


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2", "qwen3"])
@pytest.mark.parametrize("tied", [True, False])
def test_a_decoder_is_the_same_where_there_is_no_position(kind: str, tied: bool) -> None:
    teacher = pretrained(kind, "AutoModelForCausalLM", head_dim=8, tie_word_embeddings=tied)
    model, report = from_pretrained_model(teacher, segment_length=4, summary_tokens=2)
    assert type(model) is CompactForCausalLM
    one = ids(6, 1)  # a token alone has no rotation
    torch.testing.assert_close(model.eval()(one).logits, teacher(one).logits, rtol=1e-4, atol=1e-4)
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == tied
    assert report.approximated == {}
    assert report.new["near_bias.table.weight"] == "zero"
    assert "rotary positions" in report.dropped
    assert torch.isfinite(model(ids(2, 19), labels=ids(2, 19)).loss)


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_an_encoder_is_the_same_where_positions_are_alike(kind: str) -> None:
    teacher = pretrained(kind, "AutoModel", **({"pad_token_id": 0} if kind == "bert" else {"pad_token_id": 1}))
    table = teacher.embeddings.position_embeddings
    with torch.no_grad():
        table.weight.copy_(torch.randn(16).expand_as(table.weight))
    model, report = from_pretrained_model(teacher)
    assert type(model) is CompactModel
    tokens, mask = ids(2, 9), torch.ones(2, 9, dtype=torch.long)
    mask[1, 5:] = 0
    ours = model.eval()(tokens, attention_mask=mask).last_hidden_state
    theirs = teacher(tokens, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(ours[mask.bool()], theirs[mask.bool()], rtol=1e-4, atol=1e-4)
    assert list(report.approximated) == ["embed_types.weight"]


def test_a_classifier_keeps_its_labels_and_gets_a_new_head() -> None:
    labels = {"id2label": {0: "no", 1: "yes", 2: "perhaps"}, "label2id": {"no": 0, "yes": 1, "perhaps": 2}}
    teacher = pretrained("bert", "AutoModelForSequenceClassification", **labels)
    before = {k: v.clone() for k, v in teacher.state_dict().items()}
    model, report = from_pretrained_model(teacher, embedding_size=8, segment_length=4)
    assert type(model) is CompactForSequenceClassification
    assert model.config.id2label == labels["id2label"]
    assert model(ids(2, 9), labels=torch.tensor([0, 2])).logits.shape == (2, 3)
    assert {"embed_tokens.weight", "embed_in.weight"} <= report.approximated.keys()
    assert "classifier.weight" in report.new
    assert "pooler" in report.dropped
    named = {*report.copied, *report.approximated, *report.new}
    assert named == {name.removeprefix("model.") for name in model.state_dict()}
    assert "copied: " in str(report)
    assert all(torch.equal(v, before[k]) for k, v in teacher.state_dict().items())


@pytest.mark.parametrize(("tied", "changes"), [(True, {}), (False, {}), (False, {"tie_word_embeddings": True})])
def test_factorised_tables_are_the_best_of_their_rank(tied: bool, changes: dict[str, Any]) -> None:
    teacher = pretrained("qwen3", "AutoModelForCausalLM", head_dim=8, tie_word_embeddings=tied)
    model, report = from_pretrained_model(teacher, embedding_size=12, **changes)
    weights = {k: v.detach() for k, v in model.state_dict().items()}
    table = weights["model.embed_tokens.weight"] @ weights["model.embed_in.weight"].T
    head = weights["lm_head.weight"] @ weights["model.embed_out.weight"]
    wanted = [teacher.get_input_embeddings().weight.detach(), teacher.lm_head.weight.detach()]
    together = model.config.tie_word_embeddings and not tied
    pairs = list(zip(wanted, (table, head), strict=True))
    for whole, found in [tuple(torch.cat(x, 1) for x in zip(*pairs, strict=True))] if together else pairs:
        left, values, right = torch.linalg.svd(whole, full_matrices=False)
        best = left[:, :12] * values[:12] @ right[:12]
        torch.testing.assert_close(found, best, rtol=1e-3, atol=1e-4)
    assert "lm_head.weight" not in report.new


def test_factorise_tells_what_it_keeps() -> None:
    torch.manual_seed(0)
    table = torch.randn(30, 3) @ torch.randn(3, 8)
    codes, (way,), kept = factorise([table], 3)
    torch.testing.assert_close(codes @ way.T, table, rtol=1e-4, atol=1e-4)
    assert kept == pytest.approx(1)
    assert factorise([table], 2)[2] < 0.999


def test_what_cannot_be_converted_is_refused() -> None:
    gpt = transformers.AutoModelForCausalLM.from_config(
        transformers.GPT2Config(vocab_size=40, n_embd=16, n_layer=1, n_head=2, **_IDS)
    )
    with pytest.raises(ModelError, match=r"'gpt2'.*cannot be converted"):
        from_pretrained_model(gpt)
    teacher = pretrained("llama", "AutoModelForCausalLM", tie_word_embeddings=False)
    with pytest.raises(ModelError, match="an output matrix of its own"):
        from_pretrained_model(teacher, tie_word_embeddings=True)
    with pytest.raises(ModelError, match="did you mean 'segment_length'"):
        from_pretrained_model(teacher, segment_lenght=4)
    with pytest.raises(ModelError, match="hidden_size cannot change"):
        from_pretrained_model(teacher, hidden_size=8)
    with pytest.raises(ModelError, match="cannot be converted"):
        from_pretrained_model(pretrained("llama", "AutoModelForSequenceClassification"))
