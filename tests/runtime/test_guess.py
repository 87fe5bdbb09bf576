"""Which student of a run is meant, and that it is not one of an older training."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from limbeck.core.artifacts import Artifact, load, step
from limbeck.core.errors import ModelError
from limbeck.runtime.guess import student_folder
from limbeck.serving.folders import served
from tests.runtime.students import BERT, TEXT, student


def made(run: Path, name: str, seed: int, **parents: Artifact) -> Artifact:
    """An artifact with a student."""

    def work(folder: Path) -> dict[str, int]:
        student(folder / "student", TEXT, BERT)
        return {"seed": seed}

    return step(run, name, inputs={"seed": seed}, parents=parents, work=work)[0]


def test_what_was_made_of_an_older_student_is_refused(tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text("{}")
    made(tmp_path, "compress", 0, train=made(tmp_path, "train", 0))
    assert student_folder(tmp_path) == tmp_path / "compress" / "student"
    assert served(str(tmp_path)).folder == tmp_path / "compress" / "student"

    shutil.rmtree(tmp_path / "train")
    made(tmp_path, "train", 1)

    for ask in (student_folder, lambda run: served(str(run))):
        with pytest.raises(ModelError, match="was made of another student"):
            ask(tmp_path)
    assert student_folder(tmp_path / "train") == tmp_path / "train" / "student"
    assert load(tmp_path / "compress").manifest["kind"] == "compress"
