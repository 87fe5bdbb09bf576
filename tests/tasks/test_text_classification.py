"""Text classification: single texts and pairs, truncation, padding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, BertConfig

from limbeck.core.errors import DataError
from limbeck.core.recipe import Model
from limbeck.core.types import Sample
from limbeck.tasks.text_classification import TextClassification

NAMES = ("bad", "good")


def sample(text: str, label: str = "good", pair: str | None = None) -> Sample:
    return Sample(text, {"text": text} | ({} if pair is None else {"text_pair": pair}), label)


@pytest.fixture
def tokenizer() -> Any:
    spec = Model(config={"model_type": "bert"}, tokenizer={"vocab_size": 300})
    return TextClassification().new_processor(spec, [sample("hello world " * 5)])


def test_texts_become_a_batch(tokenizer: Any) -> None:
    codec = TextClassification().codec(tokenizer, NAMES)
    found = codec.encode([sample("hello"), sample("hello world, hello", "bad")])
    assert [f.length for f in found.features] == [len(tokenizer(f.id)["input_ids"]) for f in found.features]
    assert found.counts == {}
    batch = codec.collate(found.features)
    assert batch.labels.tolist() == [1, 0]
    assert batch.ids == ("hello", "hello world, hello")
    short, width = found.features[0].length, batch.inputs["input_ids"].shape[1]
    assert batch.inputs["attention_mask"].sum(1).tolist() == [f.length for f in found.features]
    assert batch.inputs["input_ids"][0, short:].tolist() == [tokenizer.pad_token_id] * (width - short)


def test_longer_texts_are_cut_and_counted(tokenizer: Any) -> None:
    long = sample("hello world " * 30)
    exact = TextClassification(max_length=len(tokenizer(long.inputs["text"])["input_ids"]))
    assert exact.codec(tokenizer, NAMES).encode([long]).counts == {}
    found = TextClassification(max_length=8).codec(tokenizer, NAMES).encode([long, sample("hello"), long])
    assert found.counts == {"truncated": 2}
    assert [f.length for f in found.features] == [8, 3, 8]
    assert found.features[0].values["input_ids"][-1] == tokenizer.sep_token_id


def test_pairs_are_told_apart(tokenizer: Any) -> None:
    codec = TextClassification(max_length=9).codec(tokenizer, NAMES)
    found = codec.encode([sample("hello", pair="world"), sample("hello world " * 9, pair="hello world " * 9)])
    first = found.features[0].values["input_ids"]
    assert tokenizer.decode(first) == "<cls>hello<sep>world<sep>"
    assert first != codec.encode([sample("world", pair="hello")]).features[0].values["input_ids"]
    assert found.counts == {"truncated": 1}
    assert found.features[1].values["input_ids"].count(tokenizer.sep_token_id) == 2


def test_token_types_reach_the_batch(tokenizer: Any, tmp_path: Path) -> None:
    tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    codec = TextClassification().codec(tokenizer, NAMES)
    found = codec.encode([sample("hello", pair="world"), sample("hello world", pair="hello world")])
    types = codec.collate(found.features).inputs["token_type_ids"]
    assert types[0].tolist() == [
        0,
        0,
        0,
        *[1] * (found.features[0].length - 3),
        *[0] * (types.shape[1] - found.features[0].length),
    ]


def test_padding_does_not_change_the_answer(tokenizer: Any) -> None:
    codec = TextClassification().codec(tokenizer, NAMES)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = BertConfig(**sizes, **codec.settings(), max_position_embeddings=64)
    model = AutoModelForSequenceClassification.from_config(config).eval()
    features = codec.encode([sample("hello"), sample("hello world " * 6)]).features
    with torch.no_grad():
        both = model(**codec.collate(features).inputs).logits
        for row, feature in enumerate(features):
            torch.testing.assert_close(both[row], model(**codec.collate([feature]).inputs).logits[0])
    assert model.config.id2label == {0: "bad", 1: "good"}
    assert model.config.num_labels == 2


def test_nothing_to_encode(tokenizer: Any) -> None:
    assert len(TextClassification().codec(tokenizer, NAMES).encode([])) == 0


def test_rows_are_read() -> None:
    task = TextClassification()
    assert task.read({"text": "a", "label": 1}, "row 0") == ({"text": "a"}, 1, {})
    assert task.read({"text": "a", "text_pair": "b", "label": 1}, "row 0")[0] == {"text": "a", "text_pair": "b"}
    for fields in ({"text": None, "label": 1}, {"text": "a", "text_pair": 3, "label": 1}, {"text": " ", "label": 0}):
        with pytest.raises(DataError, match="row 3: the text"):
            task.read(fields, "row 3")


def test_tokenizers_are_compared_by_their_tokens(tokenizer: Any) -> None:
    task, spec = TextClassification(), Model(config={"model_type": "bert"}, tokenizer={"vocab_size": 270})
    assert task.same_reading(tokenizer, tokenizer)
    assert not task.same_reading(tokenizer, task.new_processor(spec, [sample("quite another text " * 9)]))
