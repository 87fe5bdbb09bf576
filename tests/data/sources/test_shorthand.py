"""A bare string in a recipe stands for one source at most."""

import pytest

from limbeck.core.errors import RecipeError
from limbeck.core.parts import build, config_of, find, names


def claims(value):
    return [name for name in names("source") if find("source", name).shorthand(value) is not None]


@pytest.mark.parametrize(
    ("value", "name"),
    [
        *((f"rows{suffix}", "jsonl") for suffix in (".jsonl", ".JSONL", ".ndjson", ".jsonl.gz", ".ndjson.gz")),
        *((f"a/rows{suffix}", "csv") for suffix in (".csv", ".tsv", ".csv.gz", ".tsv.gz")),
        ("a/rows.parquet", "parquet"),
        ("/a/rows.npz", "npz"),
        ("PolyAI/banking77", "hub"),
        ("stanfordnlp/sst2_v1.1", "hub"),
        ("./pictures", "image_folder"),
        ("/data/pictures", "image_folder"),
        ("../../pictures/", "image_folder"),
        ("~/pictures", "image_folder"),
    ],
)
def test_each_string_has_one_meaning(value, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert claims(value) == [name]
    source = build("source", value)
    assert source.type() == name
    assert build("source", config_of(source)) == source


@pytest.mark.parametrize(
    "value",
    [
        "",
        "x",
        "a/b/c",
        "a/b.json",
        "a/b.txt",
        "./b.xyz",
        "a b/c",
        "-/x",
        "a/",
        "x" * 5000,
        3,
        None,
        ["a/b"],
    ],
)
def test_strings_that_name_no_source(value, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert claims(value) == []
    with pytest.raises(RecipeError, match="this names no source"):
        build("source", value)


def test_a_folder_that_is_there_is_meant(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert claims("data/pets") == ["hub"]
    (tmp_path / "data" / "pets").mkdir(parents=True)
    assert claims("data/pets") == ["image_folder"]
    assert claims("data") == ["image_folder"]
    (tmp_path / "rows.parquet").mkdir()
    assert claims("rows.parquet") == ["parquet"]


def test_naming_a_source_imports_nothing_heavy():
    import subprocess
    import sys

    code = """
import sys
from limbeck.core.parts import find
for name in ("csv", "digits", "hub", "image_folder", "jsonl", "npz", "parquet"):
    find("source", name)
heavy = {"torch", "numpy", "pyarrow", "datasets", "sklearn", "PIL"} & set(sys.modules)
sys.exit(f"imported {heavy}" if heavy else 0)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
