"""Answers that rows hold already: judged like written ones, and nobody is asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from limbeck.core.errors import LimbeckError
from limbeck.core.recipe import load_recipe
from limbeck.pipeline._job import RunJob
from limbeck.pipeline.generate import GeneratedJob, generate, with_generated
from tests.pipeline.recipes import QUICK, qwen

QUESTION, OTHER = "Ann has 2 pens and buys 3 more. How many?", "Bo has 3 pens and buys 4 more. How many?"


def recorded(folder: Path) -> str:
    """Three answers to one question, one of them wrong and one cut off, and one to another."""
    rows = [(QUESTION, "add", "So #### 5", "5"), (QUESTION, None, "#### 4", "5"), (OTHER, "3 and 4", "#### 7", "7")]
    lines: list[dict[str, Any]] = [
        {"messages": [{"role": "user", "content": asked}, answer(said, thought)], "solution": right}
        for asked, thought, said, right in rows
    ]
    cut = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": "<think>\nadd 2 and"}]
    path = folder / "traces.jsonl"
    path.write_text("\n".join(map(json.dumps, [*lines, {"messages": cut, "solution": "5"}])))
    return str(path)


def answer(content: str, thought: str | None) -> dict[str, Any]:
    return {"role": "assistant", "content": content, "reasoning_content": thought}


def judged(folder: Path, **stage: Any) -> GeneratedJob:
    """The step done alone, and the run with its rows."""
    given = folder / "given.jsonl"
    given.write_text("\n".join(json.dumps({"prompt": f"{i}?", "answer": f"#### {i}"}) for i in range(4)))
    job = RunJob(
        load_recipe(
            {
                "task": {"type": "causal-lm", "max_length": 128},
                "output": str(folder / "run"),
                "student": {"config": qwen(8), "tokenizer": {"train": "bpe", "vocab_size": 300}},
                "data": {"train": str(given), "validation": str(given), "test": str(given)},
                "stages": [{"name": "sft", "max_steps": 1, "terms": ["cross_entropy"]}],
                "evaluate": QUICK,
                "generate": {"recorded": True, "reference": "solution", "verify": "math_answer", **stage},
            }
        )
    )
    found = with_generated(job, generate(job, None))
    assert isinstance(found, GeneratedJob)
    return found


def table(job: RunJob, name: str = "rows") -> list[dict[str, Any]]:
    return pq.read_table(job.output / "generate" / f"{name}.parquet").to_pylist()


def test_the_right_ones_are_learned_from(tmp_path: Path) -> None:
    job = judged(tmp_path, prompts=recorded(tmp_path), filters=["truncated"])
    rows, dropped = table(job), table(job, "dropped")
    assert [row["id"] for row in rows] == ["basic/basic/0#0", "basic/basic/2#0"]
    assert [row["messages"][-1]["reasoning_content"] for row in rows] == ["add", "3 and 4"]
    assert {row["id"]: row["reason"] for row in dropped} == {"basic/basic/0#1": "wrong", "basic/basic/0#2": "truncated"}
    assert rows[0]["pass_rate"] == pytest.approx(1 / 3)
    assert job.generated.manifest["stages"]["basic"]["model"] == "recorded"


def test_training_rows_are_recorded_answers_too(tmp_path: Path) -> None:
    job = judged(tmp_path, verify=None, reference=None, filters=[])
    assert [row["messages"][-1]["content"] for row in table(job)] == [f"#### {i}" for i in range(4)]


def test_a_program_is_run_with_what_its_prompt_imports(tmp_path: Path) -> None:
    prompt = 'from math import isqrt\n\ndef root(n: int) -> int:\n    """The root."""\n'
    bodies = ("    return isqrt(n)", "    return n")
    rows = [
        {"prompt": prompt, "answer": body, "entry_point": "root", "test": "assert root(17) == 4"} for body in bodies
    ]
    path = tmp_path / "programs.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    job = judged(tmp_path, prompts=str(path), verify="code", reference=["test", "entry_point", "prompt"])
    assert [row["messages"][-1]["content"].strip() for row in table(job)] == ["return isqrt(n)"]
    assert [row["reason"] for row in table(job, "dropped")] == ["wrong"]
    assert job.generated.manifest["stages"]["basic"]["pass_at"] == {"1": 0.5}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"reference": "nothing"}, "no column nothing"),
        ({"verify": "judge"}, "no writer can judge"),
        ({"samples": 2}, "nobody is asked"),
        ({"writer": "a-model"}, "nobody is asked"),
        ({"reference": ["solution", "tests"]}, "no column tests"),
    ],
)
def test_what_cannot_be_judged(tmp_path: Path, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(LimbeckError, match=said):
        judged(tmp_path, prompts=recorded(tmp_path), **fields)
