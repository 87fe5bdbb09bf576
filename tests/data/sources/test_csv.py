import csv
import gzip

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from limbeck.core.errors import DataError
from limbeck.data.sources.csv import CSV


def write(path, text):
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize("name", ["x.csv", "x.csv.gz"])
def test_rows(tmp_path, name):
    path = write(tmp_path / name, '\ufefftext,label\r\n"a, b",0\r\n"two\nlines",1\r\n\r\n')
    rows = CSV(path=path).load("train")
    assert list(rows) == [{"text": "a, b", "label": "0"}, {"text": "two\nlines", "label": "1"}]
    assert rows.where(0) == f"{path}, row 2"


def test_delimiters_and_quotes(tmp_path):
    assert list(CSV(path=write(tmp_path / "x.tsv", "a\tb\n1,2\t3\n")).load("train")) == [{"a": "1,2", "b": "3"}]
    assert list(CSV(path=write(tmp_path / "x.csv", "a;b\n1;2\n"), delimiter=";").load("train")) == [
        {"a": "1", "b": "2"}
    ]
    path = write(tmp_path / "q.tsv", 'a\tb\n"Go" he said\t3\n')
    with pytest.raises(DataError, match=r"q\.tsv, line 2 is malformed(.|\n)*quotes: false"):
        CSV(path=path).load("train")
    assert list(CSV(path=path, quotes=False).load("train")) == [{"a": '"Go" he said', "b": "3"}]


def test_long_values_leave_the_library_as_it_was(tmp_path):
    before = csv.field_size_limit()
    path = write(tmp_path / "x.csv", "a\n" + "y" * 200_000 + "\n")
    assert len(CSV(path=path).load("train")[0]["a"]) == 200_000
    assert csv.field_size_limit() == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no header"),
        ("\na,b\n", "has no header"),
        ("a,,b\n1,2,3\n", "row 1: column 2 has no name"),
        ("a,b,a\n1,2,3\n", "row 1 names the column 'a' twice"),
        ("a,b\n1,2\n1,2,3\n", "row 3 has 3 values for 2 columns"),
        ('a,b\n"1\n2",2\n1\n', r"row 3 \(line 4\) has 1 values for 2 columns"),
        ("a,b\n1,2\n\n1,2\n", "row 3 is blank"),
        ('a,b\n1,"2\n', "line 2 is malformed"),
    ],
)
def test_malformed_tables_are_named(tmp_path, text, message):
    with pytest.raises(DataError, match=rf"bad\.csv,? {message}"):
        CSV(path=write(tmp_path / "bad.csv", text)).load("train")


def test_bytes_that_are_no_text(tmp_path):
    (tmp_path / "x.csv").write_bytes(b"a\nok\n\xff\n")
    with pytest.raises(DataError, match="line 3 is not UTF-8"):
        CSV(path=tmp_path / "x.csv").load("train")


CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), min_size=1)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
@given(st.lists(st.tuples(CELLS, CELLS), max_size=5))
def test_whatever_csv_writes_comes_back(tmp_path, records):
    path = tmp_path / "x.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("a", "b"), *records])
    assert [tuple(row.values()) for row in CSV(path=path).load("train")] == records
