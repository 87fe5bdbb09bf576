"""Whole training runs with augmentation: splits, resuming, consistency."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from limbeck.core.recipe import Training
from limbeck.core.types import Batch, Needs, Signal
from limbeck.teachers.local import LocalTeacher
from limbeck.training.loop import Job, StageJob, train
from tests.training.augmented import picture_codec, pictures, stage, vit
from tests.training.ragged import losses

AUGMENT = [{"type": "crop", "padding": 2}, {"type": "rotate"}, {"type": "mixup", "alpha": 1.0}]
BOTH = [{"type": "cross_entropy"}, {"type": "kl"}]


class Watching(LocalTeacher):
    """A teacher that keeps what it saw, and may pull the plug."""

    def __init__(self, *args: Any, stop_after: int | None = None):
        super().__init__(*args)
        self.saw: list[Batch] = []
        self.stop_after = stop_after

    def signal(self, batch: Batch, needs: Needs) -> Signal:
        if len(self.saw) == self.stop_after:
            raise KeyboardInterrupt
        self.saw.append(batch)
        return super().signal(batch, needs)


def job(micro: int = 8, stop_after: int | None = None, save_steps: int = 100, **fields: Any) -> Job:
    """Four steps of eight out of twelve pictures."""
    codec = picture_codec()
    encoded = codec.encode(pictures(12))
    plan = {"augment": AUGMENT, "terms": BOTH, "learning_rate": 1e-2, "warmup_ratio": 0, "eval_steps": 4, **fields}
    made = stage(per_device_train_batch_size=micro, **plan)
    teacher = Watching(vit(1), stop_after=stop_after)
    return Job(
        "student",
        vit(2),
        codec,
        [StageJob(made, encoded, encoded)],
        Training(save_steps=save_steps),
        0,
        "samples",
        teacher,
    )


def ran(folder: Path, **fields: Any) -> tuple[Job, list[tuple[float, float]]]:
    folder.mkdir(exist_ok=True)
    made = job(**fields)
    train(made, folder)
    return made, losses(folder)


def test_micro_batches_change_nothing(tmp_path: Path) -> None:
    told = [ran(tmp_path / str(micro), micro=micro)[1] for micro in (8, 2, 1)]
    for other in told[1:]:
        torch.testing.assert_close(torch.tensor(other), torch.tensor(told[0]), rtol=2e-4, atol=1e-5)


def test_augmentation_and_its_seed_change_the_run(tmp_path: Path) -> None:
    assert ran(tmp_path / "with")[1] != ran(tmp_path / "without", augment=[])[1]


@pytest.mark.parametrize("stop", [1, 3])
def test_an_interrupted_run_repeats_every_draw(stop: int, tmp_path: Path) -> None:
    whole, expected = ran(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        ran(tmp_path / "cut", stop_after=stop, save_steps=1)
    rest, told = ran(tmp_path / "cut")
    assert told == expected
    assert whole.teacher is not None
    assert rest.teacher is not None
    for one, two in zip(whole.teacher.saw[stop:], rest.teacher.saw, strict=True):  # type: ignore[attr-defined]
        assert one.draws == two.draws
        assert torch.equal(one.inputs["pixel_values"], two.inputs["pixel_values"])
        assert torch.equal(one.blend.share, two.blend.share)
    for one, two in zip(whole.student.state_dict().values(), rest.student.state_dict().values(), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("to", ["teacher", "student", "each_other"])
def test_consistency_is_trained(to: str, tmp_path: Path) -> None:
    fields = {"augment": AUGMENT[:2], "views": ["clean", "augmented"], "terms": [{"type": "consistency", "to": to}]}
    told = [ran(tmp_path / str(micro), micro=micro, max_steps=12, **fields)[1] for micro in (8, 2)]
    torch.testing.assert_close(torch.tensor(told[0]), torch.tensor(told[1]), rtol=2e-3, atol=1e-5)
    values = [loss for loss, _ in told[0]]
    assert values[-1] < 0.5 * values[0]
