"""What the text tasks share: tokenizers, and padding."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import transformers
from torch import Tensor

from limbeck.core.errors import DataError, ModelError
from limbeck.core.recipe import Model, TrainTokenizer
from limbeck.data.thinking import CLOSE, OPEN

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def load_tokenizer(name: str, *, revision: str | None, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    """A tokenizer from the hub or a folder; one without a padding token pads with its end token.

    Raises:
        ModelError: there is none, or it has no end token to pad with.
    """
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            name, revision=revision or "main", trust_remote_code=trust_remote_code
        )
    except (OSError, ValueError) as error:
        raise ModelError(f"there is no tokenizer at '{name}'", got=error, fix="name one: tokenizer: NAME") from error
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token is None:
            raise ModelError(f"the tokenizer of '{name}' has neither a padding nor an end token")
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def tokenizer_for(spec: Model, texts: Iterable[str], special: dict[str, str]) -> PreTrainedTokenizerBase:
    """The tokenizer of a model made from a config: a named one, or one trained on the texts."""
    if isinstance(spec.tokenizer, str):
        return load_tokenizer(spec.tokenizer, revision=None, trust_remote_code=spec.trust_remote_code)
    if isinstance(spec.tokenizer, TrainTokenizer):
        return train_bpe(texts, spec.tokenizer.vocab_size, special)
    raise ModelError(
        "a text model made from a config needs a tokenizer", fix="tokenizer: {train: bpe, vocab_size: 512}"
    )


def train_bpe(texts: Iterable[str], vocab_size: int, special: dict[str, str]) -> PreTrainedTokenizerBase:
    """Byte-level BPE with single digits; `special` maps roles (pad_token, eos_token) to tokens.

    With a `cls_token` and a `sep_token` a text becomes `cls text sep`, a pair `cls text sep text sep`.

    Reference:
        Sennrich et al., Neural Machine Translation of Rare Words with Subword Units, 2016, arXiv:1508.07909.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    split = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(split)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(special.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if {"cls_token", "sep_token"} <= special.keys():
        cls, sep = special["cls_token"], special["sep_token"]
        ids = [(token, tokenizer.token_to_id(token)) for token in (cls, sep)]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{cls} $A {sep}", pair=f"{cls} $A {sep} $B:1 {sep}:1", special_tokens=ids
        )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **special
    )


def spells_special(tokenizer: Any, texts: Iterable[str]) -> bool:
    """Whether a text holds the name of a special token, which the tokenizer would read as that token.

    Think tags do not count: they are how a thought is written, whatever a tokenizer takes them for.
    """
    names = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special} - {OPEN, CLOSE}
    return any(name in text for text in texts for name in names)


def pad(rows: Sequence[Sequence[int]], value: int, side: str = "right") -> Tensor:
    """Sequences of numbers as one tensor [B, T]."""
    width = max((len(row) for row in rows), default=0)
    padded = np.full((len(rows), width), value, dtype=np.int64)  # torch takes ten times as long for short rows
    for i, row in enumerate(rows):
        where = slice(0, len(row)) if side == "right" else slice(width - len(row), width)
        padded[i, where] = row
    return torch.from_numpy(padded)


def text_of(value: Any, role: str, where: str) -> str:
    """A text value, checked."""
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{where}: the {role} is empty or not text", got=repr(value)[:80])
    return value
