"""Trimmed vocabularies: the rows in use are read as before, and nothing becomes unreadable."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from limbeck.core.errors import ModelError
from limbeck.models.shrink import load_token_map, save_token_map, teacher_ids, trim_vocabulary
from tests.models.conftest import new

TEXTS = (
    "the card that I ordered has not arrived yet",
    "how do I top up my account with a cheque",
    "why was a fee charged when I withdrew cash abroad",
    "my transfer is pending, what happened to it?",
    "naïve café owners order 1234 cards; 56 arrive",
    "the exchange rate of the transfer was wrong: ordered, ordering, orders, order",
)
ROWS, OTHER = TEXTS[:3], (*TEXTS, "wholly unseen wording, zebra 789 yields", "ñandú 漢字 🙂")
KINDS = ("wordpiece", "bpe", "bpe-words", "bpe-prefix", "bpe-ignoring", "bpe-bytes", "unigram", "unigram-bytes")
SPECIAL = {"pad_token": "<pad>", "unk_token": "<unk>", "cls_token": "<cls>", "sep_token": "<sep>"}


def tokenizer_of(kind: str) -> Any:
    """A small tokenizer of a kind, with what real ones have: special tokens, template, added tokens at the end."""
    special, alphabet = list(SPECIAL.values()), pre_tokenizers.ByteLevel.alphabet()
    common = {"vocab_size": 400, "special_tokens": special, "show_progress": False}
    if kind == "wordpiece":
        made = Tokenizer(models.WordPiece(unk_token="<unk>"))
        made.pre_tokenizer, made.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
        made.train_from_iterator(TEXTS * 3, trainers.WordPieceTrainer(**common))
    elif kind.startswith("unigram"):
        made = Tokenizer(models.Unigram())
        made.normalizer = normalizers.Replace(Regex(" {2,}"), " ")
        made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
        made.train_from_iterator(TEXTS * 3, trainers.UnigramTrainer(**{**common, "unk_token": "<unk>"}))
        if kind == "unigram-bytes":
            spec = json.loads(made.to_str())
            spec["model"]["vocab"] += [[f"<0x{i:02X}>", -9.0] for i in range(256)]
            spec["model"]["byte_fallback"] = True
            made = Tokenizer.from_str(json.dumps(spec))
            made.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    elif kind in ("bpe-words", "bpe-prefix"):
        extra = {"continuing_subword_prefix": "##"} if kind == "bpe-prefix" else {"end_of_word_suffix": "</w>"}
        made = Tokenizer(models.BPE(unk_token="<unk>", **extra))
        made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        made.decoder = decoders.WordPiece() if kind == "bpe-prefix" else decoders.BPEDecoder()
        made.train_from_iterator(TEXTS * 3, trainers.BpeTrainer(**common, **extra))
    elif kind == "bpe-bytes":
        made = Tokenizer(models.BPE(byte_fallback=True))
        made.pre_tokenizer = pre_tokenizers.Metaspace()
        made.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
        some = [*special, *(f"<0x{i:02X}>" for i in range(256))]
        made.train_from_iterator(TEXTS * 3, trainers.BpeTrainer(**{**common, "special_tokens": some}))
        spec = json.loads(made.to_str())  # bytes are ordinary tokens there
        spec["added_tokens"] = [token for token in spec["added_tokens"] if token["content"] in special]
        made = Tokenizer.from_str(json.dumps(spec))
    else:
        made = Tokenizer(models.BPE(ignore_merges=kind == "bpe-ignoring"))
        made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
        made.train_from_iterator(TEXTS * 3, trainers.BpeTrainer(**common, initial_alphabet=alphabet))
    ids = [(t, made.token_to_id(t)) for t in ("<cls>", "<sep>")]
    made.post_processor = processors.TemplateProcessing(
        single="<cls> $A <sep>", pair="<cls> $A <sep> $B:1 <sep>:1", special_tokens=ids
    )
    done = transformers.PreTrainedTokenizerFast(tokenizer_object=made, **SPECIAL)
    done.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    return done


def model_of(tokenizer: Any, name: str, **fields: Any) -> Any:
    sep = tokenizer.sep_token_id
    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": sep, "bos_token_id": tokenizer.cls_token_id}
    padded = len(tokenizer) + 3  # rows that no token has
    return new(name, **{"vocab_size": padded, "num_hidden_layers": 1, **ids, **fields})


def used_by(tokenizer: Any, rows: tuple[str, ...]) -> set[int]:
    return {i for row in tokenizer(list(rows))["input_ids"] for i in row}


@pytest.mark.parametrize("kind", KINDS)
def test_rows_in_use_are_read_as_before(kind: str) -> None:
    tokenizer = tokenizer_of(kind)
    teacher = model_of(tokenizer, "bert")
    trimmed = trim_vocabulary(teacher, tokenizer, used_by(tokenizer, ROWS))
    assert len(trimmed.token_map) == len(trimmed.tokenizer) == trimmed.model.config.vocab_size < len(tokenizer)
    assert trimmed.token_map.tolist() == sorted(set(trimmed.token_map.tolist()))
    for texts in ([*ROWS], [f"{ROWS[0]}<|im_end|>"]):
        old = tokenizer(texts, padding=True, return_tensors="pt", return_token_type_ids=False)
        mine = trimmed.tokenizer(texts, padding=True, return_tensors="pt", return_token_type_ids=False)
        assert torch.equal(teacher_ids(trimmed.token_map, mine["input_ids"]), old["input_ids"])
        assert trimmed.tokenizer.batch_decode(mine["input_ids"]) == tokenizer.batch_decode(old["input_ids"])
        got = trimmed.model.eval()(**mine).logits
        torch.testing.assert_close(got, teacher(**old).logits, rtol=0, atol=0)
    pair = tokenizer(ROWS[0], ROWS[1])["input_ids"]
    assert trimmed.token_map[trimmed.tokenizer(ROWS[0], ROWS[1])["input_ids"]].tolist() == pair


@pytest.mark.parametrize("kind", KINDS)
def test_no_text_becomes_unreadable(kind: str) -> None:
    tokenizer = tokenizer_of(kind)
    trimmed = trim_vocabulary(model_of(tokenizer, "bert"), tokenizer, used_by(tokenizer, ROWS[:1])).tokenizer
    for text in OTHER:
        old, mine = tokenizer(text)["input_ids"], trimmed(text)["input_ids"]
        assert mine.count(trimmed.unk_token_id) <= old.count(tokenizer.unk_token_id), text
        assert trimmed.decode(mine) == tokenizer.decode(old)
        assert len(mine) >= len(old)


@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "unigram"])
def test_it_holds_for_any_choice_of_rows(kind: str) -> None:
    """Every pair of texts on its own: other sets of tokens, other merges."""
    tokenizer = tokenizer_of(kind)
    teacher = model_of(tokenizer, "bert")
    for rows in itertools.pairwise(TEXTS):
        trimmed = trim_vocabulary(teacher, tokenizer, used_by(tokenizer, rows))
        for row in rows:
            mine = torch.tensor(trimmed.tokenizer(row)["input_ids"])
            assert trimmed.token_map[mine].tolist() == tokenizer(row)["input_ids"]


def test_merges_on_the_way_stay() -> None:
    """'abcd' is merged by way of 'bc', which no row shows; without it the row would fall apart."""
    made = Tokenizer(models.BPE({t: i for i, t in enumerate(["a", "b", "c", "d", "bc", "abc", "abcd", "cd"])},
                                [("b", "c"), ("a", "bc"), ("c", "d"), ("abc", "d")]))  # fmt: skip
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>")
    trimmed = trim_vocabulary(model_of(tokenizer, "bert", eos_token_id=None, bos_token_id=None), tokenizer, [6])
    assert set(trimmed.tokenizer.get_vocab()) == {"a", "b", "c", "d", "bc", "abc", "abcd", "<pad>"}
    assert trimmed.tokenizer.tokenize("abcdabc") == ["abcd", "abc"]


@pytest.mark.parametrize("name", ["qwen3-tied", "qwen3", "gpt2"])
def test_language_models_lose_rows_of_the_head(name: str, tmp_path: Path) -> None:
    tokenizer = tokenizer_of("bpe")
    teacher = model_of(tokenizer, name)
    teacher.generation_config.eos_token_id = [tokenizer.sep_token_id, tokenizer.convert_tokens_to_ids("<|im_end|>")]
    trimmed = trim_vocabulary(teacher, tokenizer, used_by(tokenizer, ROWS))
    trimmed.model.save_pretrained(tmp_path)
    trimmed.tokenizer.save_pretrained(tmp_path)
    save_token_map(trimmed.token_map, tmp_path)
    student = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    mine = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert torch.equal(load_token_map(tmp_path), trimmed.token_map)
    assert load_token_map(tmp_path.parent) is None
    tied = name == "qwen3-tied" or name == "gpt2"
    assert (student.get_output_embeddings().weight is student.get_input_embeddings().weight) is tied
    ids = torch.tensor([mine(ROWS[0])["input_ids"]])
    wanted = teacher(teacher_ids(trimmed.token_map, ids)).logits[..., trimmed.token_map]
    torch.testing.assert_close(student(ids).logits, wanted, rtol=1e-5, atol=1e-5)
    stops = mine.convert_ids_to_tokens(student.generation_config.eos_token_id)
    assert stops == ["<sep>", "<|im_end|>"]
    assert mine.convert_ids_to_tokens(student.config.pad_token_id) == "<pad>"
    assert teacher.config.vocab_size == len(tokenizer) + 3, "the teacher is left as it is"


def test_a_chat_template_comes_along() -> None:
    tokenizer = tokenizer_of("bpe")
    tokenizer.chat_template = "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"
    trimmed = trim_vocabulary(model_of(tokenizer, "qwen3"), tokenizer, used_by(tokenizer, ROWS))
    chat = [{"role": "user", "content": ROWS[0]}]
    mine = torch.tensor(trimmed.tokenizer.apply_chat_template(chat, return_dict=False))
    assert trimmed.token_map[mine].tolist() == tokenizer.apply_chat_template(chat, return_dict=False)


def test_what_cannot_be_trimmed_is_refused() -> None:
    tokenizer = tokenizer_of("wordpiece")
    teacher = model_of(tokenizer, "bert")
    with pytest.raises(ModelError, match=r"not in the tokenizer's vocabulary(.|\n)*99999"):
        trim_vocabulary(teacher, tokenizer, [5, 99999])
    with pytest.raises(ModelError, match="no row for"):
        trim_vocabulary(new("bert"), tokenizer, [5])
    words = transformers.PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0})))
    with pytest.raises(ModelError, match=r"WordLevel(.|\n)*WordPiece, BPE, Unigram"):
        trim_vocabulary(teacher, words, [0])
