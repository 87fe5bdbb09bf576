"""Tiny models of several architectures, new for each test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers

from limbeck.core.recipe import Model
from limbeck.core.types import Batch
from limbeck.models.load import load_model

CAUSAL = "AutoModelForCausalLM"
TEXT = "AutoModelForSequenceClassification"
IMAGE = "AutoModelForImageClassification"

_IDS = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
_LM = {
    "hidden_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 24,
    "vocab_size": 40,
    "max_position_embeddings": 32,
    **_IDS,
}
_BERT = {k: v for k, v in _LM.items() if k not in ("num_key_value_heads", *_IDS)}
_VIT = {k: _BERT[k] for k in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")}

CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen3": (CAUSAL, {**_LM, "head_dim": 8}),
    "qwen3-tied": (CAUSAL, {**_LM, "model_type": "qwen3", "head_dim": 8, "tie_word_embeddings": True}),
    "llama": (CAUSAL, _LM),
    "gpt2": (CAUSAL, {"n_embd": 16, "n_layer": 4, "n_head": 2, "n_positions": 32, "vocab_size": 40, **_IDS}),
    "gemma2": (CAUSAL, {**_LM, "head_dim": 8, "final_logit_softcapping": 30.0}),
    "cohere": (CAUSAL, {**_LM, "logit_scale": 0.0625}),
    "smollm3": (CAUSAL, {**_LM, "no_rope_layers": [1, 1, 1, 0]}),
    "bert": (TEXT, _BERT),
    "vit": (IMAGE, {**_VIT, "image_size": 8, "patch_size": 4, "num_channels": 1}),
    "resnet": (IMAGE, {"embedding_size": 8, "hidden_sizes": [8, 8], "depths": [1, 1], "layer_type": "basic"}),
}


def new(name: str, **fields: Any) -> Any:
    """A model by a name of `CONFIGS`, with weights larger than usual, so that no difference hides."""
    auto_class, config = CONFIGS[name]
    model = load_model(Model(config={"model_type": name, **config, **fields}), auto_class, settings={})
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 2:
                weight.mul_(8)
    return model.eval()


def inputs_of(model: Any) -> dict[str, torch.Tensor]:
    if hasattr(model.config, "num_channels"):
        return {"pixel_values": torch.randn(2, model.config.num_channels, 8, 8)}
    ids = torch.randint(3, 40, (2, 9))
    mask = torch.ones_like(ids)
    mask[1, 6:] = 0
    return {"input_ids": ids, "attention_mask": mask}


def batch_of(model: Any) -> Batch:
    inputs = inputs_of(model)
    shape = inputs["input_ids"].shape if "input_ids" in inputs else (2,)
    return Batch(("a", "b"), inputs, torch.ones(shape, dtype=torch.long))


@pytest.fixture(autouse=True)
def quiet() -> Any:
    """transformers' bars and notes would fill a failing test's output."""
    level = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    yield
    transformers.logging.set_verbosity(level)
    transformers.logging.enable_progress_bar()


@pytest.fixture
def make() -> Callable[..., Any]:
    return new
