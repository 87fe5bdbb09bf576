"""Recipes that take a second: every task, models of a few thousand parameters, two steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

QUICK: dict[str, Any] = {
    "latency_runs": 2,
    "resamples": 100,
    "robustness": None,
    "interpretability": None,
    "speed": {"batch_sizes": [2], "seconds": 0.01},
}
"""An evaluation that costs next to nothing."""
WHOLE = {**QUICK, "robustness": {"severities": [1], "max_samples": 4}, "interpretability": {"max_samples": 4}}
"""The same with everything that is on by default."""
RESNET = {"model_type": "resnet", "num_channels": 1, "depths": [1, 1], "layer_type": "basic"}
QWEN = {
    "model_type": "qwen3",
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 256,
    "tie_word_embeddings": True,
}
BERT = {"model_type": "bert", "num_attention_heads": 2, "max_position_embeddings": 64}


def resnet(width: int) -> dict[str, Any]:
    return {**RESNET, "embedding_size": width, "hidden_sizes": [width, 2 * width]}


def qwen(width: int) -> dict[str, Any]:
    return {**QWEN, "hidden_size": width, "intermediate_size": 2 * width, "head_dim": width // 2}


def stage(**fields: Any) -> dict[str, Any]:
    terms = [{"type": "cross_entropy", "weight": 0.5}, {"type": "kl", "weight": 0.5, "temperature": 2}]
    return {"name": "distil", "max_steps": 2, "terms": terms, **fields}


def images(output: Path, **fields: Any) -> dict[str, Any]:
    """Some of the digits: a residual network teaches a smaller one."""
    return {
        "task": "image-classification",
        "output": str(output),
        "teacher": {"config": resnet(8), "finetune": {"max_steps": 2}},
        "student": {"config": resnet(4)},
        "data": {"train": "digits", "max_samples": 200},
        "stages": [stage()],
        "evaluate": {**QUICK, "max_samples": 50},
        **fields,
    }


def language(output: Path, **fields: Any) -> dict[str, Any]:
    """Arithmetic problems: a decoder teaches a smaller one."""
    source = {"type": "arithmetic", "train_size": 40, "validation_size": 8, "test_size": 8}
    return {
        "task": {"type": "causal-lm", "max_length": 128},
        "output": str(output),
        "teacher": {
            "config": qwen(16),
            "tokenizer": {"train": "bpe", "vocab_size": 300},
            "finetune": {"max_steps": 2},
        },
        "student": {"config": qwen(8)},
        "data": {"train": source},
        "training": {"global_batch_size": 8},
        "stages": [stage()],
        "evaluate": {**QUICK, "max_new_tokens": 8},
        **fields,
    }


def texts(output: Path, rows: Path, **fields: Any) -> dict[str, Any]:
    """A table of texts: an encoder teaches one of its layers."""
    rows.write_text("text,label\n" + "".join(f"it is {i % 4} today,kind{i % 2}\n" for i in range(40)))
    bert = {**BERT, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2}
    return {
        "task": {"type": "text-classification", "max_length": 32},
        "output": str(output),
        "teacher": {
            "config": bert,
            "tokenizer": {"train": "bpe", "vocab_size": 300},
            "finetune": {"max_steps": 2},
        },
        "student": {"model": "from-teacher", "layers": [1]},
        "data": {"train": str(rows), "test": str(rows)},
        "training": {"precision": "bf16", "global_batch_size": 8},
        "stages": [stage()],
        "evaluate": QUICK,
        **fields,
    }
