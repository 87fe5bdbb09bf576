"""The loss scaler of fp16: its state outlives a stop, and steps that it leaves out are told. A CPU has one, too."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from limbeck.objectives.distribution.cross_entropy import CrossEntropy
from limbeck.objectives.distribution.kl import KL
from limbeck.training import loop
from limbeck.training.engine import make_accelerator
from limbeck.training.loop import Job, train
from tests.training.ragged import make_job
from tests.training.test_loop import F32, _Stopping


@pytest.fixture
def scaled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs have a scaler that starts so high that the first step overflows, and that grows every two steps."""

    def made(*args: Any) -> Any:
        accelerator = make_accelerator(*args)
        accelerator.scaler = torch.amp.GradScaler(
            "cpu", init_scale=2.0**127, backoff_factor=2.0**-100, growth_interval=2
        )
        return accelerator

    monkeypatch.setattr(loop, "make_accelerator", made)


def heavy_job() -> Job:
    """Its gradients overflow under the first scale."""
    job = make_job(8, F32, 6, save_steps=1)
    stage = job.stages[0].stage.model_copy(update={"terms": [CrossEntropy(weight=3000), KL(weight=7000)]})
    job.stages = [replace(job.stages[0], stage=stage)]
    return job


def skipped(folder: Path) -> list[bool]:
    lines = [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]
    return [line.get("skipped", False) for line in lines]


@pytest.mark.usefixtures("scaled")
def test_goes_on_with_its_scale_and_says_what_it_left_out(tmp_path: Path) -> None:
    whole = heavy_job()
    train(whole, tmp_path / "whole")
    assert skipped(tmp_path / "whole") == [True] + [False] * 5
    first = heavy_job()
    first.teacher = _Stopping(first.teacher, after=3)  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        train(first, tmp_path / "parts")
    kept = next((tmp_path / "parts" / ".checkpoints").glob("step-*/progress.json"))
    assert json.loads(kept.read_text())["scaler"]["scale"] == 2.0**28  # backed off once, grown once
    second = heavy_job()
    train(second, tmp_path / "parts")
    assert skipped(tmp_path / "parts") == skipped(tmp_path / "whole")
    ends = [
        json.loads(next((tmp_path / name / ".checkpoints").glob("step-*/progress.json")).read_text())["scaler"]
        for name in ("whole", "parts")
    ]
    assert ends[0] == ends[1]
    for one, two in zip(whole.student.state_dict().values(), second.student.state_dict().values(), strict=True):
        assert torch.equal(one, two)
