"""Small tokenizers, made here: no test needs the network."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import processors

from limbeck.tasks._text import train_bpe

TEXTS = ["What is 2 + 3?", "The answer is 5. #### 5", "user assistant hello world", "<think>\nwell\n</think>"] * 3
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def plain_tokenizer(vocab_size: int = 320) -> Any:
    return train_bpe(TEXTS, vocab_size, {"pad_token": "<pad>", "eos_token": "<eos>"})


def chat_tokenizer(template: str = CHATML) -> Any:
    """As Qwen's: a turn ends with the end token and a newline; padding is a token of its own."""
    special = {"pad_token": "<pad>", "eos_token": "<|im_end|>", "bos_token": "<|im_start|>"}
    made = train_bpe(TEXTS, 320, special)
    made.chat_template = template
    return made


def opening_tokenizer() -> Any:
    """As Llama's: puts a token before every text."""
    made = train_bpe(TEXTS, 320, {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"})
    made.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", made.bos_token_id)]
    )
    return made


@pytest.fixture
def plain() -> Any:
    return plain_tokenizer()


@pytest.fixture
def chat() -> Any:
    return chat_tokenizer()


@pytest.fixture
def opening() -> Any:
    return opening_tokenizer()
