"""A tiny text-classification job in which layers are compared, for tests of the loop."""

from __future__ import annotations

from typing import Any

import torch
import transformers

from limbeck.core.recipe import Stage, Training
from limbeck.core.types import Sample
from limbeck.tasks._text import train_bpe
from limbeck.tasks.text_classification import TextClassification
from limbeck.teachers.local import LocalTeacher
from limbeck.training.loop import Job, StageJob

WORDS = "one two three four five six seven eight nine ten"


def samples(count: int = 24) -> list[Sample]:
    words = WORDS.split()
    return [Sample(str(i), {"text": " ".join(words[: 1 + i % 10])}, f"kind{i % 3}") for i in range(count)]


def bert(width: int, layers: int, heads: int, rows: int, seed: int, **fields: Any) -> transformers.PreTrainedModel:
    torch.manual_seed(seed)
    config = transformers.BertConfig(
        vocab_size=rows,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=width,
        max_position_embeddings=64,
        num_labels=3,
        **fields,
    )
    return transformers.BertForSequenceClassification(config)


def feature_job(stages: list[dict[str, Any]], teacher: bool = True, **training: Any) -> Job:
    """A two-layer student of width 8, a four-layer teacher of width 16; three classes."""
    rows = samples()
    special = {"pad_token": "<pad>", "cls_token": "<cls>", "sep_token": "<sep>", "unk_token": "<unk>"}
    tokenizer = train_bpe([s.inputs["text"] for s in rows], 280, special)
    codec = TextClassification(max_length=32).codec(tokenizer, ("kind0", "kind1", "kind2"))
    encoded = codec.encode(rows)
    defaults = {"max_steps": 4, "global_batch_size": 8, "learning_rate": 1e-2, "warmup_ratio": 0}
    jobs = [StageJob(Stage(**{"name": f"s{i}", **defaults, **s}), encoded, encoded) for i, s in enumerate(stages)]
    told = LocalTeacher(bert(16, 4, 4, len(tokenizer), 1)) if teacher else None
    student = bert(8, 2, 2, len(tokenizer), 2)
    return Job("student", student, codec, jobs, Training(**training), 0, "samples", told)
