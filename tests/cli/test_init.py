"""`limbeck init`: recipes to start from."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from limbeck.cli.init import TaskName
from limbeck.core.parts import names
from limbeck.core.recipe import load_recipe
from tests.cli.command import limbeck, refused

TEMPLATES = Path(__file__).parents[2] / "src/limbeck/cli/templates"


def test_there_is_a_template_for_every_task_and_no_other() -> None:
    tasks = {str(task) for task in TaskName}
    assert tasks == {path.stem for path in TEMPLATES.iterdir()}
    started_as_causal_lm = {"structured-reasoning"}
    assert tasks == {name.replace("_", "-") for name in names("task")} - started_as_causal_lm


@pytest.mark.parametrize("task", list(TaskName))
def test_it_prints_a_recipe_for_the_task(task: TaskName, tmp_path: Path) -> None:
    done = limbeck("init", task)
    assert done.returncode == 0
    assert done.stdout == (TEMPLATES / f"{task}.yaml").read_text(encoding="utf-8")
    (tmp_path / "r.yaml").write_text(done.stdout)
    made = load_recipe(tmp_path / "r.yaml")
    assert made.task.type() == task.replace("-", "_")
    assert made.baseline


@pytest.mark.parametrize("task", list(TaskName))
def test_a_template_is_explained_and_fits_the_page(task: TaskName) -> None:
    text = (TEMPLATES / f"{task}.yaml").read_text(encoding="utf-8")
    lines = text.splitlines()
    assert lines[0].startswith("# yaml-language-server: $schema=")
    assert max(map(len, lines)) <= 120
    comments = [line for line in lines if "#" in line]
    assert len(comments) > len(lines) / 3
    for section in yaml.safe_load(text):
        above = lines[next(i for i, line in enumerate(lines) if line.startswith(f"{section}:")) - 1]
        assert above.startswith("#"), f"`{section}` has no comment above it"


def test_it_writes_a_file_once(tmp_path: Path) -> None:
    done = limbeck("init", "image-classification", "-o", "mine.yaml", folder=tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    assert "next: limbeck run mine.yaml" in done.stderr
    (tmp_path / "mine.yaml").write_text("precious")
    refused(limbeck("init", "causal-lm", "-o", "mine.yaml", folder=tmp_path), "mine.yaml is already there", "fix:")
    assert (tmp_path / "mine.yaml").read_text() == "precious"


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    refused(limbeck("init", "causal-lm", "-o", "no/mine.yaml", folder=tmp_path), "No such file", "no/mine.yaml")
