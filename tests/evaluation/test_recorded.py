"""The matrix over predictions that others recorded: their scores come back, with intervals and exact tests."""

from __future__ import annotations

import csv
import gzip
import json
import os
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from limbeck.evaluation.book import Book
from limbeck.evaluation.predictions import Predictions, read_elsewhere
from limbeck.evaluation.statistics import holm
from tests.evaluation.made import measured, value

DATA = Path(os.environ.get("LIMBECK_DATA", Path(__file__).parents[2].parent / "shared" / "data"))


def file(name: str) -> Path:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"no {name} where LIMBECK_DATA says")
    return path


def lines(name: str) -> list[dict[str, Any]]:
    with gzip.open(file(name), "rt", encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


def agrees_with_statsmodels(book: Book, models: Mapping[str, Predictions], teacher: str) -> None:
    """McNemar against the teacher, Holm over the table: both by statsmodels."""
    tables = pytest.importorskip("statsmodels.stats.contingency_tables")
    multiple = pytest.importorskip("statsmodels.stats.multitest")
    right = {name: {i: bool(ok) for i, ok in zip(t["id"], t["correct"], strict=True)} for name, t in models.items()}
    others = [name for name in models if name != teacher]
    expected = []
    for name in others:
        counts = np.zeros((2, 2), dtype=int)
        for sample, ok in right[name].items():
            counts[int(not ok), int(not right[teacher][sample])] += 1
        expected.append(tables.mcnemar(counts, exact=True).pvalue)
    corrected = multiple.multipletests(expected, method="holm")[1]
    assert holm(expected) == pytest.approx(corrected)
    for name, p in zip(others, corrected, strict=True):
        assert value(book, name, "mcnemar_p_teacher") == pytest.approx(p, rel=1e-6, abs=1e-300)


def check_shares(book: Book, recorded: Mapping[str, float], name: str) -> None:
    """The recorded scores, inside of intervals as wide as theory has them."""
    for model, expected in recorded.items():
        (row,) = [each for each in book.scores if (each.model, each.name) == (model, name)]
        assert row.value == pytest.approx(expected, abs=1e-12)
        assert row.low is not None
        assert row.high is not None
        half = 1.96 * np.sqrt(expected * (1 - expected) / row.n)
        assert row.low <= expected <= row.high
        assert row.high - row.low == pytest.approx(2 * half, rel=0.1, abs=0.01)


@pytest.mark.slow
def test_nine_models_on_family_quizzes() -> None:
    found: dict[str, dict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
    for row in lines("farel_traces/long_traces.jsonl.gz") + lines("farel_traces/short_outputs.jsonl.gz"):
        columns = found[row["model"]]
        columns["id"].append(str(row["qid"]))
        for name, key in (("target", "gold"), ("prediction", "pred"), ("correct", "correct")):
            columns[name].append(row[key])
        columns["text"].append(row["output"])
        columns["input"].append(row["prompt"])
        columns["slice:relation"].append(row["relation"])
    assert len(found) == 9
    models = {name: Predictions(dict(columns), origin=name) for name, columns in found.items()}
    recorded = {name: float(np.mean(table["correct"])) for name, table in models.items()}
    best = max(recorded, key=lambda name: recorded[name])
    models["teacher"] = models.pop(best)
    recorded["teacher"] = recorded.pop(best)
    metrics = ("accuracy", "answer_rates", "agreement", "retention", "worst_slices", "examples")
    book = measured(models, *metrics, resamples=2000)
    check_shares(book, recorded, "answer_accuracy")
    agrees_with_statsmodels(book, models, "teacher")
    assert {row["column"] for row in book.details["slices"]} >= {"relation"}
    assert len(book.details["examples"]) == 10


@pytest.mark.slow
def test_eight_models_on_mmlu_pro() -> None:
    path = file("mmlu_pro_outputs/answers.csv.gz")
    with gzip.open(path, "rt", newline="") as stream:
        rows = list(csv.DictReader(stream))
    names = [name for name in rows[0] if name not in ("question_id", "category", "gold")]
    assert len(names) == 8
    models, recorded = {}, {}
    for name in names:
        columns = {"id": "question_id", "target": "gold", "prediction": name, "slice:category": "category"}
        model = "teacher" if name == "qwen15_110b" else name
        models[model] = read_elsewhere(path, columns, "ABCDEFGHIJ")
        recorded[model] = sum(row[name] == row["gold"] for row in rows) / len(rows)
    book = measured(models, "accuracy", "macro_f1", "agreement", "retention", "worst_slices", "per_class")
    check_shares(book, recorded, "accuracy")
    agrees_with_statsmodels(book, models, "teacher")
    assert value(book, "llama31_70b_it", "kept_of_teacher") > 1
    assert len(book.details["classes"]) == 8 * 10


@pytest.mark.slow
def test_four_models_on_grade_school_maths(tmp_path: Path) -> None:
    rows = lines("gsm8k/teacher_solutions_on_test.jsonl.gz")
    names = [key.removesuffix("_is_correct") for key in rows[0] if key.endswith("_is_correct")]
    assert len(names) == 4
    models, recorded = {}, {}
    for name in names:
        table = [
            {
                "id": i,
                "correct": row[f"{name}_is_correct"],
                "text": row[f"{name}_solution"],
                "prediction": row[f"{name}_solution"].rpartition("A: ")[2],
                "reference": row["ground_truth"],
            }
            for i, row in enumerate(rows)
        ]
        pq.write_table(pa.Table.from_pylist(table), tmp_path / f"{name}.parquet")
        model = "teacher" if name == "175b_verification" else name
        models[model] = read_elsewhere(tmp_path / f"{name}.parquet")
        recorded[model] = float(np.mean([row[f"{name}_is_correct"] for row in rows]))
    book = measured(models, "accuracy", "answer_rates", "retention", "steps", resamples=2000)
    check_shares(book, recorded, "answer_accuracy")
    agrees_with_statsmodels(book, models, "teacher")
    for name in models:
        # GSM8K's models were trained with a calculator: nearly all equations are true, right answer or not.
        assert value(book, name, "step_equations_right") > 0.9
        assert value(book, name, "answer_follows_steps") > 0.8
    assert 0.1 < value(book, "6b_finetuning", "path_agreement") < 0.9
