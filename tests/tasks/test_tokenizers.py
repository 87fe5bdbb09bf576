"""Tokenizers trained here, tokenizers loaded, and padding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.core.errors import ModelError
from limbeck.core.recipe import Model
from limbeck.tasks._text import load_tokenizer, pad, tokenizer_for, train_bpe
from tests.tasks.conftest import TEXTS, plain_tokenizer

TOKENIZER = plain_tokenizer()


@settings(deadline=None, max_examples=300)
@given(st.text())
def test_decoding_loses_nothing(text: str) -> None:
    ids = TOKENIZER(text)["input_ids"]
    assert TOKENIZER.decode(ids) == text or any(token in text for token in ("<pad>", "<eos>"))


@settings(deadline=None)
@given(st.integers(0, 10**30))
def test_every_digit_is_a_token(number: int) -> None:
    assert TOKENIZER.convert_ids_to_tokens(TOKENIZER(str(number))["input_ids"]) == list(str(number))


def test_training_keeps_to_its_size_and_repeats() -> None:
    special = {"pad_token": "<pad>", "eos_token": "<eos>"}
    one, other = (train_bpe(TEXTS, 280, special) for _ in range(2))
    assert len(one) == 280
    assert one.get_vocab() == other.get_vocab()
    assert (one.pad_token, one.eos_token) == ("<pad>", "<eos>")
    assert len(one("The answer is 5.")["input_ids"]) < len("The answer is 5.")


def test_classifiers_get_their_marks() -> None:
    made = train_bpe(TEXTS, 320, {"cls_token": "<cls>", "sep_token": "<sep>", "pad_token": "<pad>"})
    assert made.decode(made("hello")["input_ids"]) == "<cls>hello<sep>"
    assert made.decode(made("hello", "world")["input_ids"]) == "<cls>hello<sep>world<sep>"
    cut = made("hello world " * 9, "hello", truncation=True, max_length=8)["input_ids"]
    assert len(cut) == 8
    assert made.decode(cut).count("<sep>") == 2


def test_a_saved_tokenizer_reads_the_same(tmp_path: Path) -> None:
    TOKENIZER.save_pretrained(tmp_path)
    again = load_tokenizer(str(tmp_path), revision=None, trust_remote_code=False)
    for text in (*TEXTS, "ähm 42 <eos>", " \n\t"):
        assert again(text)["input_ids"] == TOKENIZER(text)["input_ids"]
        assert again.decode(again(text)["input_ids"]) == TOKENIZER.decode(TOKENIZER(text)["input_ids"])
    named = tokenizer_for(Model(config={"model_type": "qwen3"}, tokenizer=str(tmp_path)), [], {})
    assert named.get_vocab() == TOKENIZER.get_vocab()


def test_padding_is_the_end_token_where_there_is_none(tmp_path: Path) -> None:
    made = train_bpe(TEXTS, 280, {"eos_token": "<eos>"})
    made.save_pretrained(tmp_path)
    assert load_tokenizer(str(tmp_path), revision=None, trust_remote_code=False).pad_token == "<eos>"
    bare: Any = train_bpe(TEXTS, 280, {"unk_token": "<unk>"})
    bare.save_pretrained(tmp_path / "bare")
    with pytest.raises(ModelError, match="neither a padding nor an end token"):
        load_tokenizer(str(tmp_path / "bare"), revision=None, trust_remote_code=False)


def test_a_missing_tokenizer_is_said(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no tokenizer at"):
        load_tokenizer(str(tmp_path), revision=None, trust_remote_code=False)


def test_pad() -> None:
    rows = [[1, 2, 3], [], [4]]
    assert pad(rows, 9).tolist() == [[1, 2, 3], [9, 9, 9], [4, 9, 9]]
    assert pad(rows, 9, "left").tolist() == [[1, 2, 3], [9, 9, 9], [9, 9, 4]]
    assert pad([], 9).shape == (0, 0)
