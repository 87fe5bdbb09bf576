"""Columns of the user's rows that bear the names of our own, recipes that ask nobody, and judges that change."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest

from limbeck.core.errors import RecipeError
from limbeck.core.recipe import Generate, load_recipe
from limbeck.core.types import Sample
from limbeck.pipeline import _writers
from limbeck.pipeline._job import RunJob
from limbeck.pipeline._recorded import recorded_answers
from limbeck.pipeline._rows import Table
from limbeck.pipeline.generate import generate
from limbeck.pipeline.plan import read_batches
from limbeck.verification.select import Facts

TURNS = ({"role": "user", "content": "Two and two?"},)


def recipe(tmp_path: Path, **stage: Any) -> dict[str, Any]:
    """A recipe with one data stage."""
    (tmp_path / "rows.jsonl").write_text('{"prompt": "Two and two?", "answer": "4"}\n' * 4)
    rows = str(tmp_path / "rows.jsonl")
    return {
        "task": "causal-lm",
        "output": str(tmp_path / "run"),
        "teacher": {"endpoint": {"base_url": "http://localhost:1/v1", "model": "m"}},
        "student": {"model": "somewhere"},
        "data": {"train": rows, "validation": rows, "test": rows},
        "stages": [{"name": "sft", "terms": ["cross_entropy"]}],
        "generate": stage,
    }


def test_columns_may_have_our_names(tmp_path: Path) -> None:
    sample = Sample("a", {"messages": list(TURNS)}, "4", {"final_answer": 4, "detail": 5, "completion": "four"})
    (answer,) = recorded_answers(Generate(recorded=True), [sample])
    rows, dropped = Table(), Table()
    rows.add_row(answer, "basic", Facts(1, 1, 1), label=False)
    dropped.add_dropped(answer, "basic", "wrong")
    rows.write(tmp_path / "rows.parquet")
    dropped.write(tmp_path / "dropped.parquet")
    assert pq.read_table(tmp_path / "rows.parquet").to_pylist()[0]["final_answer"] == "4"
    assert pq.read_table(tmp_path / "dropped.parquet").to_pylist()[0]["detail"] == "5"


def test_a_batch_for_nobody_is_refused(tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").write_text("no line\n")
    with pytest.raises(RecipeError, match="no data stage asks anything"):
        read_batches(load_recipe({**recipe(tmp_path, recorded=True), "teacher": None}), tmp_path / "results.jsonl")


def test_another_judge_judges_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(RunJob, "step", lambda self, name, inputs, *_, **__: seen.append(inputs))
    job = RunJob(load_recipe(recipe(tmp_path, verify={"type": "judge", "model": {"model": "judge"}})))
    for fingerprint in ("a" * 64, "a" * 64, "b" * 64):
        monkeypatch.setattr(_writers, "origin", lambda spec, found=fingerprint: SimpleNamespace(fingerprint=found))
        generate(job, None)
    assert seen[0] == seen[1] != seen[2]
