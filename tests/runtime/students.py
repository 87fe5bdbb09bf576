"""Students of a few thousand parameters, in folders as a training leaves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from limbeck.core.parts import build
from limbeck.core.recipe import Model
from limbeck.core.types import Sample
from limbeck.models.load import load_model
from limbeck.runtime.card import Card

LABELS = ("cat", "dog", "bird")
TEXT: dict[str, Any] = {"type": "text-classification", "max_length": 24}
PICTURE: dict[str, Any] = {"type": "image-classification"}
LANGUAGE: dict[str, Any] = {"type": "causal-lm", "max_length": 48, "template": "plain"}
STEPS: dict[str, Any] = {"type": "structured-reasoning", "max_length": 96, "max_conclusions": 4}
BERT = {
    "model_type": "bert",
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
}
QWEN = {
    "model_type": "qwen3",
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "tie_word_embeddings": True,
}
RESNET = {
    "model_type": "resnet",
    "num_channels": 1,
    "depths": [1, 1],
    "layer_type": "basic",
    "embedding_size": 4,
    "hidden_sizes": [4, 8],
}
VIT = {
    "model_type": "vit",
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 8,
    "patch_size": 4,
    "num_channels": 1,
}


def rows(task: dict[str, Any], count: int = 6) -> list[Sample]:
    """Rows of a task, of different lengths."""
    found = []
    for i in range(count):
        words = " ".join(f"word{k}" for k in range(1 + 2 * (i % 4)))
        if task["type"] == "image-classification":
            from PIL import Image

            pixels = torch.randint(0, 256, (8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(i))
            found.append(Sample(f"r{i}", {"image": Image.fromarray(pixels.numpy())}, LABELS[i % 3]))
        elif task["type"] == "text-classification":
            found.append(Sample(f"r{i}", {"text": f"the {words} of {i}"}, LABELS[i % 3]))
        else:
            turns = [{"role": "user", "content": f"add {i} to {words}"}]
            found.append(Sample(f"r{i}", {"messages": turns}, f"{i} + 1 = {i + 1}\n#### {i + 1}"))
    return found


def student(folder: Path, task: dict[str, Any], config: dict[str, Any], **fields: Any) -> Card:
    """Write a new student with weights larger than usual, so that no difference hides; its card is returned."""
    torch.manual_seed(0)
    labels = LABELS if str(task["type"]).endswith("classification") else None
    made = build("task", task)
    spec = Model(config={**config, **fields}, tokenizer={"train": "bpe", "vocab_size": 300})
    processor = made.new_processor(spec, rows(task))  # type: ignore[attr-defined]
    codec = made.codec(processor, labels)  # type: ignore[attr-defined]
    model = load_model(spec, made.auto_class, settings=codec.settings())  # type: ignore[attr-defined]
    codec = codec.prepare(model)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 2:
                weight.mul_(4)
    model.eval().save_pretrained(folder)
    codec.save(folder)
    return Card(task=task, labels=labels)
