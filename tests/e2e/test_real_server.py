"""One recipe against a real server: `transformers serve` writes, limbeck verifies, records, trains and evaluates.

The teacher is a small decoder that was taught to add. The server gives its text, the folder its distributions.
"""

from __future__ import annotations

import json
import os
import random
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from transformers.utils.import_utils import is_serve_available

from limbeck.core import artifacts
from limbeck.core.recipe import load_recipe
from limbeck.generation.ledger import Ledger
from limbeck.pipeline.run import Result, run_recipe
from tests.pipeline.recipes import QUICK

PROMPTS = 200
WORDS = ("What is {a} plus {b}?", "Add {b} to {a}.", "{a} pens and {b} pens: how many?")
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""What the server takes for granted of a model of Qwen's: it reads the thought out of the text by these tokens."""
LONGEST = 32
"""Tokens of an answer; a right one has about fifteen."""


def sums() -> list[dict[str, str]]:
    """Each sum of two digits in three wordings, in mixed order, with a worked answer."""
    found = []
    for words in WORDS:
        for a in range(10):
            for b in range(10):
                answer = f"<think>\n{a}+{b}={a + b}\n</think>\n\n#### {a + b}"
                found.append({"prompt": words.format(a=a, b=b), "answer": answer})
    random.Random(0).shuffle(found)
    return found


def asked(row: dict[str, str]) -> str:
    """A prompt as the model reads it."""
    return f"<|im_start|>user\n{row['prompt']}<|im_end|>\n<|im_start|>assistant\n"


def result_of(question: str) -> int:
    return sum(map(int, re.findall(r"[0-9]+", question)))


def decoder(width: int) -> dict[str, Any]:
    sizes = {"hidden_size": width, "intermediate_size": 3 * width, "num_hidden_layers": 2, "head_dim": width // 4}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128}
    return {"model_type": "qwen3", **sizes, **heads, "tie_word_embeddings": True, "initializer_range": 0.08}


def write(path: Path, rows: list[dict[str, str]]) -> str:
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


def taught(folder: Path) -> Path:
    """A teacher that has learned all sums, in a folder with its tokenizer and chat template."""
    from limbeck.tasks._text import train_bpe

    rows = sums()
    special = {"pad_token": "<pad>", "eos_token": "<|im_end|>"}
    tokenizer = train_bpe([f"{asked(row)}{row['answer']}" for row in rows], 340, special)
    tokenizer.chat_template = CHATML
    tokenizer.save_pretrained(folder / "tokenizer")
    school = write(folder / "school.jsonl", rows)
    named = {"config": decoder(64), "tokenizer": str(folder / "tokenizer")}
    raw = {
        "task": {"type": "causal-lm", "max_length": 96},
        "output": str(folder / "teaching"),
        "teacher": {**named, "finetune": {"max_steps": 200, "learning_rate": 6e-3}},
        "student": named,
        "data": {"train": school, "validation": school, "test": school},
        "training": {"global_batch_size": 32, "adam_beta2": 0.98, "weight_decay": 0.0},
        "stages": [{"name": "unused", "max_steps": 1, "terms": ["cross_entropy"]}],
    }
    return run_recipe(load_recipe(raw), until="prepare").output / "prepare" / "teacher"


@contextmanager
def serving(model: Path, log: Path) -> Iterator[str]:
    """`transformers serve` on a free port, until the test is done with it; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(model), "--device", "cpu"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with log.open("w") as out:
        server = subprocess.Popen(command, stdout=out, stderr=out, env=environment)
    try:
        until = time.monotonic() + 180
        while not answers(f"http://127.0.0.1:{port}/health"):
            assert server.poll() is None, f"the server has ended:\n{log.read_text()[-3000:]}"
            assert time.monotonic() < until, f"the server does not answer:\n{log.read_text()[-3000:]}"
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        try:
            server.wait(timeout=20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def recipe(folder: Path, teacher: Path, url: str) -> dict[str, Any]:
    """Generate -> verify -> record -> train -> evaluate."""
    rows = sums()
    endpoint = {"base_url": url, "model": str(teacher), "price": {"input": 1.0, "output": 2.0}, "max_concurrency": 8}
    return {
        "task": {"type": "causal-lm", "max_length": 96},
        "output": str(folder / "run"),
        "teacher": {"model": str(teacher)},
        "student": {"config": decoder(32), "tokenizer": str(folder / "tokenizer")},
        "data": {
            "train": write(folder / "train.jsonl", rows[:PROMPTS]),
            "validation": write(folder / "validation.jsonl", rows[PROMPTS : PROMPTS + 50]),
            "test": write(folder / "test.jsonl", rows[PROMPTS + 50 :]),
        },
        "generate": {
            "writer": {"endpoint": endpoint},
            "sampling": {"temperature": 0.7, "max_tokens": LONGEST},
            "budget": {"tokens": 100_000},
            "verify": "math_answer",
            "filters": ["truncated", "think_tags"],
        },
        "cache": {"bytes_per_token": 60},
        "training": {"global_batch_size": 32, "learning_rate": 6e-3, "adam_beta2": 0.98, "weight_decay": 0.0},
        "stages": [
            {
                "name": "distil",
                "max_steps": 350,
                "terms": [{"type": "cross_entropy", "weight": 0.3}, {"type": "kl", "weight": 0.7}],
            }
        ],
        "evaluate": {**QUICK, "max_new_tokens": LONGEST},
    }


@pytest.mark.slow
@pytest.mark.timeout(1800)  # a minute of processor time, ten by the clock on a very busy machine
@pytest.mark.skipif(not is_serve_available(), reason="transformers serve needs fastapi, uvicorn and openai")
def test_generated_verified_recorded_trained_and_evaluated_by_one_recipe(tmp_path: Path) -> None:
    pytest.importorskip("math_verify", reason="verifying needs math-verify")
    teacher = taught(tmp_path)
    with serving(teacher, tmp_path / "server.log") as url:
        raw = recipe(tmp_path, teacher, url)
        result = run_recipe(load_recipe(raw))
    kept = check_rows(result.output)
    check_ledger(result.output, teacher)
    check_training(result, kept)
    # The server is gone: what was paid for is judged anew, by other filters.
    raw["generate"]["filters"] = [{"type": "length", "max_thought": 5}]
    shorter = run_recipe(load_recipe(raw), until="generate").output / "generate"
    thoughts = [row["messages"][-1]["reasoning_content"] for row in pq.read_table(shorter / "rows.parquet").to_pylist()]
    assert 0 < len(thoughts) < kept
    assert max(map(len, thoughts)) <= 5


def check_rows(output: Path) -> int:
    """Each prompt is answered once, and the right answers are the rows; how many they are."""
    rows = pq.read_table(output / "generate" / "rows.parquet").to_pylist()
    dropped = pq.read_table(output / "generate" / "dropped.parquet").to_pylist()
    told = artifacts.read_manifest(output / "generate")["stages"]["basic"]
    questions = [row["messages"][0]["content"] for row in rows] + [row["question"] for row in dropped]
    assert sorted(questions) == sorted(row["prompt"] for row in sums()[:PROMPTS])
    assert (told["answers"], told["rows"], sum(told["dropped"].values())) == (PROMPTS, len(rows), len(dropped))
    assert told["pass_at"]["1"] == pytest.approx(len(rows) / PROMPTS)
    for row in rows:
        question, said = (row["messages"][i] for i in (0, -1))
        assert row["final_answer"] == str(result_of(question["content"]))
        assert said["content"].endswith(f"#### {row['final_answer']}")
        assert re.search(r"\d\+\d=", said["reasoning_content"])
    for row in dropped:
        if row["reason"] == "wrong":
            assert not row["text"].endswith(f"#### {result_of(row['question'])}")
    assert len(rows) >= 0.6 * PROMPTS
    return len(rows)


def check_ledger(output: Path, teacher: Path) -> None:
    """Each prompt was asked once, and paid for as the server counted it; the prompts' tokens are counted anew here."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(teacher)
    with Ledger(output / "ledger.sqlite") as ledger:
        totals, counts, mean = ledger.totals("basic"), ledger.counts("basic"), ledger.mean_usage("basic")
    assert counts == {"done": PROMPTS}
    prompts = [asked(row) for row in sums()[:PROMPTS]]
    assert totals.spent.prompt == sum(len(tokenizer(text)["input_ids"]) for text in prompts)
    assert mean is not None
    assert totals.spent.completion == pytest.approx(PROMPTS * mean[1])
    assert PROMPTS < totals.spent.completion <= PROMPTS * LONGEST
    assert totals.spent.nano == 1_000 * totals.spent.prompt + 2_000 * totals.spent.completion
    log = (output.parent / "server.log").read_text()
    assert log.count('"POST /v1/chat/completions HTTP/1.1" 200 OK') == log.count("POST ") == PROMPTS
    assert totals.held.tokens == totals.lost.tokens == 0
    spent = artifacts.read_manifest(output / "generate")["stages"]["basic"]["spent"]
    assert spent["prompt_tokens"] + spent["completion_tokens"] == totals.spent.tokens
    rows = pq.read_table(output / "generate" / "rows.parquet")
    assert sum(rows["tokens"].to_pylist()) <= totals.spent.completion


def check_training(result: Result, kept: int) -> None:
    """The recording holds the generated rows and the validation rows, the student is trained on it, and adds."""
    recorded = artifacts.read_manifest(result.output / "cache")
    assert recorded["counts"]["samples"] == kept + 50
    assert recorded["measured"]["total_variation"] < 0.05
    trained = artifacts.read_manifest(result.output / "train")
    assert (trained["counts"]["train"], trained["counts"]["generated"]) == (kept, kept)
    assert {"generate", "cache"} <= trained["parents"].keys()
    assert result.score("teacher", "answer_accuracy") >= 0.7
    assert result.score("student", "answer_accuracy") >= 0.6
    assert result.score("student", "size_ratio") > 3
    assert result.report is not None
