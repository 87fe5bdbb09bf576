"""Factorised embeddings: BERT as ALBERT."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers

from limbeck.core.errors import ModelError
from limbeck.models.shrink import factorise_embeddings
from limbeck.models.shrink.draft import Draft
from limbeck.models.shrink.width import principal
from tests.models.conftest import inputs_of, new
from tests.models.shrink.test_heads import SAME, stir
from tests.models.shrink.test_width import confine


@pytest.mark.parametrize("bare", [False, True])
def test_tables_of_low_rank_are_kept_exactly(bare: bool, tmp_path: Path) -> None:
    teacher = stir(new("bert"))
    draft = Draft.of(teacher)
    writers = {n: p.detach().clone() for n, p in teacher.named_parameters() if "encoder" in n}
    confine(teacher, principal(torch.eye(16, dtype=torch.float64), 6, mean_off=True)[0])
    teacher.load_state_dict(writers, strict=False)  # the layers may write what they like
    assert draft.body == "bert."
    given = teacher.bert if bare else teacher
    student = factorise_embeddings(given, 6).eval()
    assert student.config.model_type == "albert"
    assert student.base_model.embeddings.word_embeddings.weight.shape == (40, 6)
    inputs = {**inputs_of(teacher), "token_type_ids": torch.tensor([[0] * 5 + [1] * 4] * 2)}
    key = "pooler_output" if bare else "logits"
    torch.testing.assert_close(student(**inputs)[key], given(**inputs)[key], **SAME)
    student.save_pretrained(tmp_path)
    again = type(student).from_pretrained(tmp_path).eval()
    torch.testing.assert_close(again(**inputs)[key], student(**inputs)[key], rtol=0, atol=0)


def test_more_directions_are_nearer() -> None:
    teacher = stir(new("bert"))
    inputs = inputs_of(teacher)
    with torch.no_grad():
        wanted = teacher.bert.embeddings(inputs["input_ids"])
        off = []
        for size in (4, 8, 12, 15):
            body = factorise_embeddings(teacher, size).eval().albert
            got = body.encoder.embedding_hidden_mapping_in(body.embeddings(inputs["input_ids"]))
            off.append(float((got - wanted).norm() / wanted.norm()))
    assert off == sorted(off, reverse=True)
    assert off[-1] < 0.5 * off[0]


def test_settings_come_along() -> None:
    labels = {"id2label": {0: "a", 1: "b", 2: "c"}, "label2id": {"a": 0, "b": 1, "c": 2}}
    config = new("bert", hidden_dropout_prob=0.2, hidden_act="relu", layer_norm_eps=1e-5).config
    config.update(labels)
    student = factorise_embeddings(transformers.BertForSequenceClassification(config), 4)
    new_one = student.config
    assert (new_one.id2label, new_one.hidden_act, new_one.layer_norm_eps) == (labels["id2label"], "relu", 1e-5)
    assert (new_one.classifier_dropout_prob, new_one.num_hidden_groups, new_one.embedding_size) == (0.2, 4, 4)


def test_what_cannot_be_factorised_is_refused() -> None:
    with pytest.raises(ModelError, match=r"of LlamaForCausalLM cannot be factorised(.|\n)*BertModel"):
        factorise_embeddings(new("llama"), 4)
    for size in (1, 16):
        with pytest.raises(ModelError, match="numbers from 2 to 15"):
            factorise_embeddings(new("bert"), size)
    with pytest.raises(ModelError, match="plain BERT encoders with a pooler"):
        factorise_embeddings(transformers.BertModel(new("bert").config, add_pooling_layer=False), 4)
