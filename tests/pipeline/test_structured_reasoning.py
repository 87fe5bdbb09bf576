"""Structured reasoning through the pipeline: both models have the marks, or the student alone has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import AutoConfig, AutoTokenizer

import limbeck
from limbeck.core.errors import ModelError
from tests.pipeline.recipes import language, stage

PAGE = (Path(__file__).parents[2] / "docs" / "reasoning.md").read_text(encoding="utf-8")
TASK = yaml.safe_load(PAGE.partition("```yaml\n")[2].partition("```")[0])["task"]


def rows_of(folder: Path) -> tuple[int, int]:
    """Rows of a saved model's vocabulary, and tokens of its tokenizer."""
    return AutoConfig.from_pretrained(folder).vocab_size, len(AutoTokenizer.from_pretrained(folder))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("run")
    limbeck.run(language(output, task=TASK, student={"model": "from-teacher", "layers": [0]}), until="train")
    return output


def test_a_teacher_that_was_trained_on_the_rows_has_the_marks_too(run: Path) -> None:
    for folder in (run / "prepare" / "teacher", run / "train" / "student"):
        rows, tokens = rows_of(folder)
        assert rows == tokens
        assert "<|c6|>" in AutoTokenizer.from_pretrained(folder).get_vocab()


def test_a_ready_teacher_without_marks(tmp_path: Path) -> None:
    """It cannot say anything of marks; as a student it is given them."""
    ready = limbeck.run(language(tmp_path / "plain"), until="prepare").output / "prepare" / "teacher"
    assert "<|use|>" not in AutoTokenizer.from_pretrained(ready).get_vocab()
    cut: dict[str, Any] = {"teacher": {"model": str(ready)}, "student": {"model": "from-teacher", "layers": [0]}}
    with pytest.raises(ModelError, match=r"reads as something else(.|\n)*<\|use\|>"):
        limbeck.run(language(tmp_path / "taught", task=TASK, **cut))
    alone = stage(terms=[{"type": "cross_entropy"}])
    fields = {"task": TASK, "stages": [alone], "teacher": None, "student": {"model": str(ready)}}
    limbeck.run(language(tmp_path / "alone", **fields), until="train")
    rows, tokens = rows_of(tmp_path / "alone" / "train" / "student")
    assert rows == tokens == rows_of(ready)[1] + 13
