"""Tables of predictions: written, read, aligned, refused."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from limbeck.core.errors import DataError
from limbeck.evaluation.predictions import Predictions, aligned, read, read_elsewhere, write
from limbeck.pipeline.measure import measure_predictions
from tests.evaluation.made import CLASSES, answers, classifier


def test_what_is_written_is_read(tmp_path: Path) -> None:
    table = classifier(5)
    write(tmp_path / "one.parquet", table)
    found = read(tmp_path / "one.parquet")
    assert found.columns == table.columns
    assert found.classes == CLASSES


def test_a_file_that_is_no_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "one.parquet").write_text("no")
    with pytest.raises(DataError, match="no table of predictions"):
        read(tmp_path / "one.parquet")


@pytest.mark.parametrize("ending", ["jsonl.gz", "csv", "parquet"])
def test_tables_from_elsewhere(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"model.{ending}"
    rows = [{"qid": 7, "gold": "A", "model_x": "B", "area": "law"}, {"qid": 8, "gold": "C", "model_x": "C", "area": ""}]
    if ending == "csv":
        lines = [",".join(map(str, row.values())) for row in rows]
        path.write_text("\n".join([",".join(rows[0]), *lines]) + "\n")
    elif ending == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    names = {"id": "qid", "target": "gold", "prediction": "model_x", "slice:area": "area"}
    table = read_elsewhere(path, names, "ABC")
    assert table["id"] == ["7", "8"]
    assert table["correct"] == [False, True]
    assert table["slice:area"] == ["law", None]
    assert table.slices == ["area"]
    assert table.classes == ("A", "B", "C")


@pytest.mark.parametrize(
    ("names", "match"),
    [
        ({"id": "nr"}, "no column 'nr'"),
        ({"id": "qid", "targett": "gold"}, "did you mean 'target'"),
        ({"id": "qid", "target": "gold"}, "does not say which answers are right"),
        ({"id": "same", "target": "gold", "prediction": "said"}, "has the sample 'x' twice"),
        ({"id": "empty", "target": "gold", "prediction": "said"}, "no id"),
        ({"id": "qid", "correct": "gold"}, "neither true nor false"),
        ({"id": "qid", "target": "gold", "prediction": "said", "confidence": "said"}, "no number"),
        ({"id": "qid", "target": "gold", "prediction": "said", "probabilities": "said"}, "no list of numbers"),
    ],
)
def test_what_is_wrong_with_a_table_is_told(tmp_path: Path, names: dict[str, str], match: str) -> None:
    path = tmp_path / "x.jsonl"
    row = {"gold": "A", "said": "B", "same": "x", "empty": None}
    path.write_text("".join(json.dumps({"qid": i, **row}) + "\n" for i in range(2)))
    with pytest.raises(DataError, match=match):
        read_elsewhere(path, names)


def test_classes_and_probabilities_must_fit() -> None:
    good = classifier(4)
    with pytest.raises(DataError, match="`target` is not right"):
        Predictions({**good.columns, "target": ["gnu"] * 4}, CLASSES)
    with pytest.raises(DataError, match="`probabilities` is not right"):
        Predictions({**good.columns, "probabilities": [[1.0]] * 4}, CLASSES)
    with pytest.raises(DataError, match="named twice"):
        Predictions({**good.columns, "probabilities": [[0.5, 0.5]] * 4}, ("ant", "ant"))
    with pytest.raises(DataError, match="not as long"):
        Predictions({**good.columns, "nll": [1.0]}, CLASSES)


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("id", None, "a text"),
        ("nll", float("nan"), "a finite number"),
        ("tokens", float("inf"), "a finite number"),
        ("correct", None, "in every row or in none"),
        ("parsed", None, "in every row or in none"),
        ("confidence", None, "in every row or in none"),
        ("confidence", 1.2, "from 0 to 1"),
        ("probabilities", [float("nan")] * 6, "from 0 to 1"),
        ("draw", -1, "0, 1, 2"),
    ],
)
def test_what_would_make_a_figure_wrong_is_refused(name: str, value: Any, allowed: str) -> None:
    good = {**classifier(3).columns, "nll": [1.0] * 3, "tokens": [1] * 3, "parsed": [True] * 3, "draw": [0] * 3}
    bad = {**good, name: [*good[name][:2], value]}
    with pytest.raises(DataError, match=rf"row 2: `{name}` is not right(.|\n)*{allowed}"):
        Predictions(bad, CLASSES)


@pytest.mark.parametrize(
    ("name", "said"), [("gone.csv", "no file(.|\n)*nothing"), (".", "a folder"), ("x.txt", r"\.txt(.|\n)*\.parquet")]
)
def test_a_file_that_is_not_there_or_no_table_is_told(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "x.txt").write_text("hi")
    with pytest.raises(DataError, match=said):
        read_elsewhere(tmp_path / name)
    with pytest.raises(DataError, match=said):
        measure_predictions({"a": tmp_path / name}, tmp_path / "matrix")


def test_a_row_without_a_right_answer_is_not_held_to_be_wrong(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("id,target,prediction\n1,a,a\n2,,a\n")
    with pytest.raises(DataError, match="row 3 has no `target`"):
        read_elsewhere(path)


def test_whole_numbers_are_the_same_whatever_column_they_are_in(tmp_path: Path) -> None:
    table = pa.table({"id": [1.0, 2.0, 3.0], "target": [5, 6, 7], "prediction": [5.0, None, 7.5]})
    pq.write_table(table, tmp_path / "x.parquet")
    found = read_elsewhere(tmp_path / "x.parquet")
    assert found["id"] == ["1", "2", "3"]
    assert found["prediction"] == ["5", None, "7.5"]
    assert found["correct"] == [True, False, False]


def test_tables_are_brought_into_one_order() -> None:
    one = answers(["1", "2", "3"], ["1", "2", "3"])
    found = aligned({"one": one, "other": one.rows([2, 0, 1])})
    assert found["other"]["id"] == one["id"]
    assert found["other"]["prediction"] == ["1", "2", "3"]


def test_different_truths_are_refused() -> None:
    with pytest.raises(DataError, match="different answers for right"):
        aligned({"one": answers(["1"], ["1"]), "other": answers(["1"], ["2"])})


def test_the_first_draw_answers_for_a_sample() -> None:
    table = Predictions({"id": ["a", "a", "b", "b"], "draw": [2, 1, 1, 2], "correct": [True, False, True, False]})
    assert table.first["draw"] == [1, 1]
    assert table.first["correct"] == [False, True]
