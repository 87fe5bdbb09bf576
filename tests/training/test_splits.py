"""The gradient does not depend on how a batch is split over micro-batches and processes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from limbeck.training.loop import train
from tests.processes import together
from tests.training.ragged import losses, make_job, train_each


def alone(folder: Path, micro: int, dtype: torch.dtype) -> list[tuple[float, float]]:
    folder.mkdir()
    train(make_job(micro, dtype), folder)
    return losses(folder)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[float, float]]:
    """Every batch in one piece, in one process."""
    return alone(tmp_path_factory.mktemp("ragged") / "whole", 8, torch.float64)


@pytest.mark.parametrize("micro", [1, 2, 4])
def test_micro_batches_give_the_same_steps(tmp_path: Path, whole: list[tuple[float, float]], micro: int) -> None:
    split = alone(tmp_path / "split", micro, torch.float64)
    assert len(whole) == 5
    for one, other in zip(whole, split, strict=True):
        assert one == pytest.approx(other, rel=1e-10)


def test_micro_batches_agree_in_single_precision_at_the_first_step(tmp_path: Path) -> None:
    whole = alone(tmp_path / "whole", 8, torch.float32)
    for micro in (1, 2):
        split = alone(tmp_path / str(micro), micro, torch.float32)
        assert whole[0] == pytest.approx(split[0], rel=1e-5)


@pytest.mark.slow
def test_two_processes_give_the_same_steps(tmp_path: Path, whole: list[tuple[float, float]]) -> None:
    micros = [1, 4]  # accumulated over four passes, and in one
    together(train_each, tmp_path / "two", micros)
    for micro in micros:
        for one, other in zip(whole, losses(tmp_path / "two" / str(micro)), strict=True):
            assert one == pytest.approx(other, rel=1e-10)
