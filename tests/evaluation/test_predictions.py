"""Tables of predictions: written, read, aligned, refused."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from limbeck.core.errors import DataError
from limbeck.evaluation.predictions import Predictions, aligned, read, read_elsewhere, write
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
        import pyarrow as pa
        import pyarrow.parquet as pq

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
    with pytest.raises(DataError, match="not as long"):
        Predictions({**good.columns, "nll": [1.0]}, CLASSES)


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
