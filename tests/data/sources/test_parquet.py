import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, Value

from limbeck.core.errors import DataError
from limbeck.data.sources.parquet import Parquet


def test_rows_columns_and_image_bytes(tmp_path):
    rows = [{"image": {"bytes": b"\x89PNG", "path": None}, "raw": b"\x00", "label": i, "text": None} for i in range(5)]
    folder = tmp_path / "year=2020"  # must not become a column
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(rows), folder / "x.parquet", row_group_size=2)
    table = Parquet(path=folder / "x.parquet").load("train")
    assert list(table) == rows
    assert table.rows.column("label") == [0, 1, 2, 3, 4]
    assert table.rows.column_names == ("image", "raw", "label", "text")
    assert table.label_names is None
    with pytest.raises(IndexError):
        table[5]


def test_class_names_that_datasets_wrote(tmp_path):
    features = Features({"text": Value("string"), "label": ClassLabel(names=["no", "yes"]), "stars": Value("int64")})
    Dataset.from_dict({"text": ["a"], "label": [1], "stars": [5]}, features).to_parquet(str(tmp_path / "x.parquet"))
    assert Parquet(path=tmp_path / "x.parquet").load("train").classes == {"label": ("no", "yes")}


def test_damaged_and_doubtful_files(tmp_path):
    (tmp_path / "x.parquet").write_bytes(b"PAR1 and nothing more")
    with pytest.raises(DataError, match=r"x\.parquet is not a whole Parquet file"):
        Parquet(path=tmp_path / "x.parquet").load("train")
    pq.write_table(pa.table([pa.array([1]), pa.array([2])], names=["a", "a"]), tmp_path / "x.parquet")
    with pytest.raises(DataError, match="two columns of one name"):
        Parquet(path=tmp_path / "x.parquet").load("train")
    with pytest.raises(DataError, match="there is no file"):
        Parquet(path=tmp_path / "none.parquet").load("train")
