"""The examples run as they are, in fewer steps, and print what their texts say they print."""

from __future__ import annotations

import importlib
import math
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

EXAMPLES = Path(__file__).parents[2] / "examples"
FILES = sorted(EXAMPLES.glob("*.py"))


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> ModuleType:
    """An example as a module, by its name; what it does to torch is undone."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    threads = torch.get_num_threads()
    module = importlib.import_module(request.param)
    yield module  # type: ignore[misc]
    torch.set_num_threads(threads)
    sys.modules.pop(request.param)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_an_example_is_short_and_says_how_to_run_it(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    assert f"python examples/{file.name}" in text


@pytest.mark.parametrize("example", ["plain_loop"], indirect=True)
def test_objectives_and_taps_in_a_loop(example: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    scores = example.main(seeds=1, steps=20)
    printed = capsys.readouterr().out
    assert list(scores) == ["teacher", "labels", "+ answers", "+ answers and maps"]
    assert scores["teacher"] > 0.3
    _shows_the_same_lines(example, printed)


@pytest.mark.parametrize("example", ["hf_trainer"], indirect=True)
def test_the_same_in_a_trainer(example: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    scores = example.main(steps=3)
    assert list(scores) == ["teacher", "labels", "labels and teacher"]
    assert all(math.isfinite(score) for score in scores.values())
    assert [line[:20].strip() for line in capsys.readouterr().out.splitlines()] == list(scores)


@pytest.mark.parametrize("example", ["hf_trainer"], indirect=True)
def test_the_trainer_learns_what_the_teacher_says(example: ModuleType, tmp_path: Path) -> None:
    """Its loss falls on a batch that is shown again and again, and its gradient reaches the student alone."""
    torch.manual_seed(0)
    teacher, student = example.vit(16, 2), example.vit(8, 1)
    layers = example.Relations(match={"layers.0": "layers.1"}, relation_heads=4), 1.0
    args = example.TrainingArguments(str(tmp_path), report_to=[], use_cpu=True, disable_tqdm=True)
    rows = example.pictures(torch.randint(0, 17, (4, 64)).numpy(), [0, 1, 2, 3])
    terms = [(example.KL(temperature=2), 1.0)]
    trainer = example.DistillingTrainer(teacher, terms, layers, model=student, args=args, train_dataset=rows)
    batch = trainer.data_collator(rows)
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-2)
    losses = []
    for _ in range(15):
        loss = trainer.compute_loss(student, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    assert all(weight.grad is None for weight in teacher.parameters())


def _shows_the_same_lines(example: ModuleType, printed: str) -> None:
    """The example's text shows the output of a whole run; here the numbers are others, but not the words."""

    def words(text: str) -> list[str]:
        return [re.sub(r"\d\.\d{3}", "#", line).strip() for line in text.splitlines()]

    assert words(printed)
    assert set(words(printed)) <= set(words(example.__doc__ or ""))
