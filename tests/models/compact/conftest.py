"""Tiny compact models, new for each test, with weights large enough that no difference hides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from limbeck.models.compact import CompactConfig, CompactForCausalLM, CompactForSequenceClassification

FIELDS = {
    "vocab_size": 40,
    "hidden_size": 16,
    "embedding_size": 8,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "segment_length": 4,
    "summary_tokens": 2,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 16,
    "initializer_range": 0.5,
    "eos_token_id": 1,
    "pad_token_id": 2,
}
KINDS = {True: CompactForCausalLM, False: CompactForSequenceClassification}


def new(is_decoder: bool = True, **fields: Any) -> Any:
    """A model in float64."""
    torch.manual_seed(0)
    config = CompactConfig(**{**FIELDS, "is_decoder": is_decoder, **fields})
    return KINDS[is_decoder](config).double().eval()


def ids(*shape: int) -> torch.Tensor:
    """Tokens without special ones."""
    return torch.randint(3, 40, shape, generator=torch.Generator().manual_seed(1))


def hidden(model: Any, tokens: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """What the backbone says, [B, T, E or D]."""
    with torch.no_grad():
        return model.model(tokens, attention_mask=mask, use_cache=False).last_hidden_state


class Made(TorchDispatchMode):
    """Notes how many numbers the largest tensor has that an operation makes."""

    largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        sizes = [
            tensor.untyped_storage().nbytes() // tensor.element_size()
            for tensor in tree_leaves(result)
            if isinstance(tensor, torch.Tensor)
        ]
        self.largest = max(self.largest, *sizes, 0)
        return result


@pytest.fixture
def make() -> Callable[..., Any]:
    return new
