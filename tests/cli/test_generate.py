"""`limbeck generate`: what it will cost, what it did, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.command import inside, refused
from tests.pipeline.endpoint import Endpoint, completion, serving
from tests.pipeline.recipes import QUICK, qwen


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with serving(lambda body: f"#### {body['seed']}") as found:
        yield found


@pytest.fixture
def recipe(tmp_path: Path, endpoint: Endpoint) -> str:
    """A recipe file: 8 prompts, 2 answers each, the second one right."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text("\n".join(json.dumps({"prompt": f"question {i}", "answer": "#### 1"}) for i in range(10)))
    raw: dict[str, Any] = {
        "task": "causal-lm",
        "output": str(tmp_path / "run"),
        "teacher": {"endpoint": endpoint.section()},
        "student": {"config": qwen(8), "tokenizer": {"train": "bpe", "vocab_size": 300}},
        "data": {"train": str(rows), "validation": 0.2, "test": str(rows)},
        "stages": [{"name": "sft", "max_steps": 1, "terms": ["cross_entropy"]}],
        "generate": {"samples": 2, "verify": "math_answer", "sampling": {"max_tokens": 100}},
        "evaluate": QUICK,
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(raw))
    return str(path)


def test_a_dry_run_prints_a_table_and_asks_nothing(
    recipe: str, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = inside(monkeypatch, "generate", recipe, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert endpoint.bodies == []
    lines = {line.split("  ")[0]: line.split() for line in done.stdout.splitlines() if line.strip()}
    assert lines["basic"][1:3] == ["16", "0"]
    most = next(line.split() for line in done.stdout.splitlines() if "at most" in line)
    assert most[-3:] == ["1,600", most[-2], "USD"]
    assert "budget" not in done.stdout


def test_a_budget_that_may_not_do_is_told(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    done = inside(monkeypatch, "generate", recipe, "--dry-run", "generate.budget.cost=0.0001")
    assert "basic: the budget may not hold all" in done.stdout


def test_rows_drops_and_money_are_printed(recipe: str, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    done = inside(monkeypatch, "generate", recipe)
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("basic")]
    assert line.split() == ["basic", "16", "@1", "50.0%,", "@2", "100.0%", "8", "wrong", "8", "240", "0.0003", "USD"]
    rows = Path(recipe).parent / "run" / "generate" / "rows.parquet"
    assert f"rows     {rows}" in done.stdout
    assert rows.exists()
    assert not (Path(recipe).parent / "run" / "train").exists()
    assert len(endpoint.bodies) == 16


def test_batches_go_out_and_come_in(
    recipe: str, endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = inside(monkeypatch, "generate", recipe, "--batch-out", str(tmp_path / "batch"))
    (path,) = done.stdout.split()
    calls = [json.loads(line) for line in Path(path).read_text().splitlines()]
    results = tmp_path / "results.jsonl"
    body = completion("#### 1")
    lines = [{"custom_id": call["custom_id"], "response": {"status_code": 200, "body": body}} for call in calls]
    results.write_text("\n".join(map(json.dumps, lines)))
    done = inside(monkeypatch, "generate", recipe, "--batch-in", str(results))
    assert done.stdout == "done  16\n"
    done = inside(monkeypatch, "generate", recipe, "--batch-out", str(tmp_path / "batch"))
    assert "every answer is in the ledger" in done.stderr
    assert endpoint.bodies == []


def test_what_it_refuses(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(inside(monkeypatch, "generate", recipe, "generate=null", "teacher=null"), "no `generate` section")
    refused(inside(monkeypatch, "generate", recipe, "--dry-run", "--batch-in", "x"), "only one of")
    key = "teacher.endpoint.api_key=sk-1234567890abcdef"
    done = inside(monkeypatch, "generate", recipe, key)
    refused(done, "the name of an environment variable")
    assert "sk-1234567890abcdef" not in done.stderr
    refused(inside(monkeypatch, "generate", recipe, "teacher.endpoint.api_key=NOT_SET_HERE"), "NOT_SET_HERE is not set")
