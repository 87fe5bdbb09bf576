"""Rows that a server has kept become training rows, with the larger model's answer; never a row of another split."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from limbeck.core.errors import DataError
from limbeck.core.parts import build
from limbeck.core.recipe import Data
from limbeck.data.dataset import fingerprint, load_splits
from limbeck.data.feedback import snapshot


def table(path: Path, name: str, count: int) -> str:
    rows = "".join(f"{name} {i},kind{i % 2}\n" for i in range(count))
    path.write_text(f"text,label\n{rows}")
    return str(path)


def write(folder: Path, number: int, *rows: tuple[str, str], tail: str = "") -> Path:
    folder.mkdir(exist_ok=True)
    lines = "".join(json.dumps({"inputs": {"text": text}, "label": label}) + "\n" for text, label in rows)
    (folder / f"feedback-{number:06d}.jsonl").write_text(lines + tail)
    return folder


@pytest.fixture
def data(tmp_path: Path) -> dict[str, Any]:
    names = {"train": 20, "validation": 6, "test": 6}
    return {name: table(tmp_path / f"{name}.csv", name, count) for name, count in names.items()}


def load(data: dict[str, Any], **options: Any) -> Any:
    return load_splits(Data.model_validate(data), build("task", "text-classification"), **options)


def test_new_rows_are_learned_and_no_others(data: dict[str, Any], tmp_path: Path) -> None:
    folder = write(tmp_path / "f", 1, ("new one", "kind1"), ("test 3", "kind0"), ("validation 2", "kind1"))
    write(folder, 2, ("train 4", "kind1"), ("new one", "kind0"), ("new two", "kind1"), ("odd", "other"), tail='{"in')

    plain, found = load(data), load({**data, "feedback": str(folder)})

    assert list(found.train[:20]) == list(plain.train)
    assert [(s.inputs["text"], s.target) for s in found.train[20:]] == [("new one", "kind0"), ("new two", "kind1")]
    assert len(found.train) == 22
    assert found.train[-1] == found.train[21]
    assert (list(found.validation), list(found.test)) == (list(plain.validation), list(plain.test))
    assert found.counts["feedback"] == {
        "added": 2,
        "repeated": 1,
        "already_in_train": 1,
        "already_in_validation": 1,
        "already_in_test": 1,
        "of_no_known_class": 1,
    }
    assert found.counts["train"] == 22


def test_held_out_rows_stay_the_same(data: dict[str, Any], tmp_path: Path) -> None:
    folder = write(tmp_path / "f", 1, *((f"new {i}", "kind0") for i in range(50)))
    share = {**data, "validation": 0.3}

    assert list(load({**share, "feedback": str(folder)}).validation) == list(load(share).validation)


def test_test_rows_stay_out_where_they_are_not_read(data: dict[str, Any], tmp_path: Path) -> None:
    folder = write(tmp_path / "f", 1, ("test 3", "kind0"), ("new", "kind0"))

    found = load({**data, "feedback": str(folder)}, need_test=False, read_test=False)

    assert [s.inputs["text"] for s in found.train[20:]] == ["new"]
    assert list(found.test) == []


def test_fingerprint_follows_the_rows(data: dict[str, Any], tmp_path: Path) -> None:
    folder = write(tmp_path / "f", 1, ("new", "kind0"))
    section = Data.model_validate({**data, "feedback": str(folder)})

    before = fingerprint(section)
    write(folder, 2, ("more", "kind0"))

    assert fingerprint(section)["feedback"] != before["feedback"]
    assert "feedback" not in fingerprint(Data.model_validate(data))


def test_snapshot_keeps_the_latest_of_each_row(tmp_path: Path) -> None:
    one = write(tmp_path / "one", 1, ("a", "kind0"), ("b", "kind0"))
    other = write(tmp_path / "other", 1, ("a", "kind1"))

    assert snapshot([one, other], tmp_path / "round" / "feedback.jsonl") == 2

    rows = [json.loads(line) for line in (tmp_path / "round" / "feedback.jsonl").read_text().splitlines()]
    assert [(row["inputs"]["text"], row["label"]) for row in rows] == [("b", "kind0"), ("a", "kind1")]


@pytest.mark.parametrize("line", ["{", "[]", '{"inputs": {"text": "a"}}', '{"inputs": "a", "label": "kind0"}'])
def test_damaged_rows_are_named(data: dict[str, Any], tmp_path: Path, line: str) -> None:
    folder = write(tmp_path / "f", 1, ("new", "kind0"), tail=f"{line}\n")

    with pytest.raises(DataError, match="line 2 is no row of feedback"):
        load({**data, "feedback": str(folder)})


def test_no_feedback_at_all(data: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no feedback"):
        load({**data, "feedback": str(tmp_path / "nowhere")})
