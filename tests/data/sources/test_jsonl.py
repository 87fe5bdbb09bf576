import gzip
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from limbeck.core.errors import DataError
from limbeck.data.sources.jsonl import JSONL

VALUES = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.lists(st.text(), max_size=3)
)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_rows_and_their_lines(tmp_path, name):
    path = tmp_path / name
    text = b'\xef\xbb\xbf{"a": 1}\r\n{"a": "\xe2\x80\xa8x"}\n\n  \n'
    path.write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    rows = JSONL(path=path).load("train")
    assert list(rows) == [{"a": 1}, {"a": "\u2028x"}]
    assert rows.where(1) == f"{path}, row 2"
    assert not JSONL(path=path).has("train")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
@given(st.lists(st.dictionaries(st.text(), VALUES, max_size=3), max_size=5))
def test_whatever_json_writes_comes_back(tmp_path, rows):
    path = tmp_path / "x.jsonl"
    path.write_text("\n".join(json.dumps(row, ensure_ascii=True) for row in rows), encoding="utf-8")
    assert list(JSONL(path=path).load("train")) == rows


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1}\n{"a": 1\n', "line 2 is not JSON"),
        (b'{"a": 1}\n[1]\n', "line 2 is not a JSON object"),
        (b'{"a": 1}\n\n{"a": 1}\n', "line 2 is blank"),
        (b'{"a": 1}\n{"a": "\xff"}\n', "line 2 is not UTF-8"),
    ],
)
def test_malformed_lines_are_named(tmp_path, content, message):
    path = tmp_path / "bad.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"bad\.jsonl, {message}"):
        JSONL(path=path).load("train")


def test_files_that_are_missing_damaged_or_folders(tmp_path):
    with pytest.raises(DataError, match=r"there is no file at .*none\.jsonl\n  fix: check data\.train"):
        JSONL(path=tmp_path / "none.jsonl").load("train")
    with pytest.raises(DataError, match="there is no file"):
        JSONL(path=tmp_path / "none.jsonl").fingerprint()
    with pytest.raises(DataError, match="is a folder"):
        JSONL(path=tmp_path).load("train")
    whole = gzip.compress(b'{"a": 1}\n' * 1000)
    for name, content in {"cut.jsonl.gz": whole[:-10], "plain.jsonl.gz": b'{"a": 1}\n'}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=f"{name} cannot be read after line"):
            JSONL(path=tmp_path / name).load("train")


def test_fingerprint_follows_the_bytes(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text("{}\n")
    before = JSONL(path=path).fingerprint()
    assert before == JSONL(path=path).fingerprint()
    path.write_text("{ }\n")
    assert JSONL(path=path).fingerprint() != before
