"""A tiny language-model job on ragged rows, trained in one process or by torchrun in several.

Run as a script it takes: output folder, dtype, micro-batches; each of them is trained with in a folder of its name.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

import torch
import transformers

from limbeck.core.recipe import Stage, Training
from limbeck.core.types import Sample
from limbeck.objectives.distribution.cross_entropy import CrossEntropy
from limbeck.objectives.distribution.kl import KL
from limbeck.tasks._text import train_bpe
from limbeck.tasks.causal_lm import CausalLM
from limbeck.teachers.local import LocalTeacher
from limbeck.training.loop import Job, StageJob, train


def samples(count: int = 40) -> list[Sample]:
    """Prompts and answers of very different lengths."""
    draw = random.Random(0)
    text = lambda n: "".join(draw.choice("abc def 123") for _ in range(n)) + "."  # noqa: E731
    turn = lambda: [{"role": "user", "content": text(draw.randint(1, 30))}]  # noqa: E731
    return [Sample(str(i), {"messages": turn()}, text(draw.randint(1, 40))) for i in range(count)]


def tiny_lm(vocabulary: int, width: int, seed: int, dtype: torch.dtype) -> transformers.PreTrainedModel:
    """A one-layer Qwen3."""
    torch.manual_seed(seed)
    config = transformers.AutoConfig.for_model(
        "qwen3",
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=width // 2,
        tie_word_embeddings=True,
    )
    return transformers.AutoModelForCausalLM.from_config(config, dtype=dtype)


def make_job(micro: int, dtype: torch.dtype, steps: int = 5, **training: object) -> Job:
    """Five steps of eight ragged rows, CE and KL, from a fixed start."""
    rows = samples()
    texts = [s.target for s in rows] + [s.inputs["messages"][0]["content"] for s in rows]
    tokenizer = train_bpe(texts, 270, {"pad_token": "<pad>", "eos_token": "<eos>"})
    codec = CausalLM(answer_pattern=None).codec(tokenizer, None)
    encoded = codec.encode(rows)
    stage = Stage(
        name="distil",
        max_steps=steps,
        terms=[CrossEntropy(weight=0.3), KL(weight=0.7, temperature=2)],
        global_batch_size=8,
        per_device_train_batch_size=micro,
        learning_rate=1e-2,
        warmup_ratio=0,
        eval_steps=steps,
    )
    teacher = LocalTeacher(tiny_lm(len(tokenizer), 32, 1, dtype))
    student = tiny_lm(len(tokenizer), 16, 2, dtype)
    return Job(
        "student", student, codec, [StageJob(stage, encoded, encoded)], Training(**training), 0, "tokens", teacher
    )


def losses(folder: Path) -> list[tuple[float, float]]:
    """Loss and gradient norm of every step."""
    lines = [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]
    return [(line["loss"], line["grad_norm"]) for line in lines]


def train_each(folder: Path, micros: list[int]) -> None:
    """In double precision, once for each size of a micro-batch; in several processes, each calls it."""
    for micro in micros:
        (folder / str(micro)).mkdir(parents=True, exist_ok=True)
        train(make_job(micro, torch.float64), folder / str(micro))
