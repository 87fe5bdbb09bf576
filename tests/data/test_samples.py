"""Many rows: made when they are asked for, with the same result as few."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from limbeck.core.errors import DataError
from limbeck.core.parts import build
from limbeck.core.recipe import Data
from limbeck.data import samples as samples_module
from limbeck.data.dataset import Splits, load_splits
from limbeck.data.samples import DistinctIds, Samples
from limbeck.data.sources import parquet
from limbeck.data.sources._base import Source
from limbeck.tasks.text_classification import TextClassification

ROWS = [{"text": f"text {i}\nöß", "label": "ab"[i % 2], "key": f"k{i}"} for i in range(90)]


def write(path: Path) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path, row_group_size=20)
    elif path.suffix == ".csv":
        lines = ["text,label,key", *(f'"{row["text"]}",{row["label"]},{row["key"]}' for row in ROWS)]
        path.write_text("\ufeff" + "\n".join(lines) + "\n\n", encoding="utf-8")
    else:
        text = "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS) + "\n\n"
        with gzip.open(path, "wt", encoding="utf-8") if path.suffix == ".gz" else path.open("w") as stream:
            stream.write(text)
    return path


def splits(path: Path) -> Splits:
    return load_splits(Data(train=str(path), max_samples=40), TextClassification(), need_test=False)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz", "rows.csv", "rows.parquet"])
def test_many_rows_give_the_same_samples_as_few(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / name)
    few = splits(path)
    monkeypatch.setattr(samples_module, "AT_ONCE", 5)
    monkeypatch.setattr(parquet, "_IN_MEMORY", 0)
    many = splits(path)
    path.unlink()  # what was opened stays readable
    assert isinstance(few.train, list)
    assert isinstance(many.train, Samples)
    assert list(many.train) == few.train
    assert list(many.validation) == list(few.validation)
    assert many.counts == few.counts
    assert many.train[3:7] == few.train[3:7]
    assert many.train[-1] == few.train[-1]
    with pytest.raises(IndexError):
        many.train[len(few.train)]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv"])
def test_a_row_is_read_from_its_place(name: str, tmp_path: Path) -> None:
    source = build("source", str(write(tmp_path / name)))
    assert isinstance(source, Source)
    rows = source.load("train")
    assert len(rows) == 90
    for place in (89, 0, 41):
        assert dict(rows[place]) == ROWS[place]
    for beyond in (90, -1):
        with pytest.raises(IndexError):
            rows[beyond]


def test_rows_of_a_file_cost_few_bytes_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples_module, "AT_ONCE", 200)
    path, count = tmp_path / "rows.jsonl", 4_000
    splits(write(tmp_path / "few.jsonl"))  # what is imported on the way does not count
    with path.open("w") as stream:
        for i in range(count):
            stream.write(f'{{"text": "a text of some length, number {i}", "label": "{"ab"[i % 2]}"}}\n')
    tracemalloc.start()
    try:
        found = load_splits(Data(train=str(path)), TextClassification(), need_test=False)  # type: ignore[arg-type]
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(found.train) == 3_600
    assert held / count < 60  # the row itself is a dictionary of several hundred bytes
    assert found.train[0].inputs["text"].startswith("a text")


def test_ids_that_repeat_are_found_and_others_are_not() -> None:
    names = [f"id {i}" for i in range(1000)]
    ids = DistinctIds()
    for name in names:
        ids.add(name)
    ids.check(names)
    ids.add("id 7")
    with pytest.raises(DataError, match="two rows have the id 'id 7'"):
        ids.check([*names, "id 7"])
