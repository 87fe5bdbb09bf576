"""Order, schedule, checkpoints, and that distillation really happens."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.core import artifacts
from limbeck.core.errors import ArtifactError, LimbeckError, MissingExtra, RecipeError
from limbeck.core.recipe import Optimization, Training
from limbeck.teachers.local import LocalTeacher
from limbeck.training.batches import Order, share
from limbeck.training.checkpoint import Checkpoints, Progress, load_optimizer, load_weights
from limbeck.training.engine import make_accelerator, micro_batch
from limbeck.training.loop import train
from limbeck.training.optim import learning_rate, make_optimizer
from limbeck.training.validate import better
from tests.training.ragged import losses, make_job, tiny_lm

F32 = torch.float32


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 300),
    batch=st.integers(1, 32),
    seed=st.integers(0, 5),
    by_length=st.booleans(),
    epochs=st.sampled_from([0.5, 1, 3]),
)
def test_every_row_is_seen_as_often_as_every_other(
    rows: int, batch: int, seed: int, by_length: bool, epochs: float
) -> None:
    steps = max(1, math.ceil(epochs * rows / batch))
    order = Order([1 + i % 7 for i in range(rows)], batch, steps, [seed], by_length)
    drawn = [order.step(step) for step in range(steps)]
    assert all(len(each) == batch for each in drawn)
    counts = Counter(i for each in drawn for i in each)
    seen = [counts[i] for i in range(rows)]
    assert max(seen) - min(seen) <= 1


def test_order_has_no_memory() -> None:
    one, two = (Order(list(range(1, 200)), 8, 120, [3], True) for _ in range(2))
    forward = [one.step(i) for i in range(120)]
    assert [two.step(i) for i in reversed(range(120))] == forward[::-1]
    for seed in ([4], [3, 1]):
        assert forward != [Order(list(range(1, 200)), 8, 120, seed, True).step(i) for i in range(120)]


def test_batches_hold_rows_of_like_length() -> None:
    lengths = [1 + i % 100 for i in range(2000)]
    spread = {}
    for grouped in (True, False):
        order = Order(lengths, 16, 125, [0], grouped)
        batches = [[lengths[i] for i in order.step(s)] for s in range(125)]
        spread[grouped] = sum(max(b) - min(b) for b in batches)
    assert spread[True] < spread[False] / 5


def test_processes_share_a_step_without_overlap() -> None:
    batch = list(range(12))
    parts = [share(batch, rank, 2, 3) for rank in range(2)]
    assert [len(p) for p in parts[0]] == [3, 3]
    assert sorted(i for rank in parts for part in rank for i in part) == batch


@pytest.mark.parametrize(("kind", "end"), [("cosine", 0.0), ("linear", 0.0), ("constant", 1.0)])
def test_learning_rate_rises_then_falls(kind: str, end: float) -> None:
    plan = Optimization(learning_rate=1.0, warmup_ratio=0.1, lr_scheduler_type=kind)  # type: ignore[arg-type]
    rates = [learning_rate(plan, step, 100) for step in range(100)]
    assert rates[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert rates[10] == 1.0
    assert rates[-1] == pytest.approx(end, abs=0.02)
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))


def test_batches_that_do_not_divide_are_refused() -> None:
    with pytest.raises(RecipeError, match="whole number of micro-batches") as caught:
        micro_batch(Optimization(global_batch_size=10, per_device_train_batch_size=4), 2, "stage x")
    assert "global_batch_size=8" in str(caught.value)
    assert micro_batch(Optimization(global_batch_size=10), 2, "stage x") == 5


def test_a_tracker_that_is_not_installed_names_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"limbeck\[swanlab\]"):
        make_accelerator(Training(report_to=["swanlab"]), tmp_path)


def test_only_matrices_decay() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.LayerNorm(3))
    groups = make_optimizer(model, Optimization(weight_decay=0.1)).param_groups
    assert {p.ndim for p in groups[0]["params"]} == {2}
    assert {p.ndim for p in groups[1]["params"]} == {1}
    assert (groups[0]["weight_decay"], groups[1]["weight_decay"]) == (0.1, 0.0)


def test_better_by_accuracy_then_by_loss() -> None:
    assert better({"loss": 2.0, "accuracy": 0.9}, {"loss": 1.0, "accuracy": 0.8})
    assert better({"loss": 0.5, "accuracy": 0.8}, {"loss": 1.0, "accuracy": 0.8})
    assert not better({"loss": 1.0}, {"loss": 1.0})


def trained(folder: Path, teacher_seed: int = 1) -> list[tuple[float, float]]:
    folder.mkdir()
    job = make_job(8, F32)
    job.teacher = LocalTeacher(tiny_lm(len(job.codec.processor), 32, teacher_seed, F32))
    train(job, folder)
    return losses(folder)


def test_gradients_change_when_the_teacher_changes(tmp_path: Path) -> None:
    one, two = trained(tmp_path / "one"), trained(tmp_path / "two", teacher_seed=7)
    assert one[0] != two[0]
    assert one == trained(tmp_path / "again")


def test_an_interrupted_run_ends_with_the_same_bytes(tmp_path: Path) -> None:
    """Stopped after any step, with a checkpoint at each: weights and log are those of the run left alone."""
    whole = make_job(8, F32, 6, save_steps=1)
    (tmp_path / "whole").mkdir()
    train(whole, tmp_path / "whole")
    for stop in (1, 3, 5):
        folder = tmp_path / str(stop)
        folder.mkdir()
        first = make_job(8, F32, 6, save_steps=1)
        first.teacher = _Stopping(first.teacher, after=stop)  # type: ignore[assignment]
        with pytest.raises(KeyboardInterrupt):
            train(first, folder)
        second = make_job(8, F32, 6, save_steps=1)
        train(second, folder)
        for (name, one), two in zip(
            whole.student.state_dict().items(), second.student.state_dict().values(), strict=True
        ):
            assert torch.equal(one, two), name
        assert losses(folder) == losses(tmp_path / "whole")


class _Stopping:
    """A teacher that pulls the plug."""

    def __init__(self, teacher: object, after: int):
        self.teacher, self.left = teacher, after

    def signal(self, *args: object) -> object:
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        return self.teacher.signal(*args)  # type: ignore[attr-defined]

    def update(self, student: object) -> None:
        pass


def test_checkpoints_carry_everything_and_notice_damage(tmp_path: Path) -> None:
    model = torch.nn.Linear(4, 4)
    optimizer = make_optimizer(model, Optimization())
    model(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(model, optimizer, Progress(step=3, best={"loss": 1.0}), {})
    found = checkpoints.newest()
    assert found is not None
    other = torch.nn.Linear(4, 4)
    load_weights(other, found)
    twin = make_optimizer(other, Optimization())
    load_optimizer(twin, found)
    assert torch.equal(other.weight, model.weight)
    for one, two in zip(optimizer.state.values(), twin.state.values(), strict=True):
        assert all(torch.equal(one[key], two[key]) for key in one)
    assert Progress(**json.loads(found.file("progress.json").read_text())).best == {"loss": 1.0}
    weights = found.path / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 4
    weights.write_bytes(bytes(data))
    with pytest.raises(ArtifactError, match=r"model\.safetensors has changed"):
        checkpoints.newest()


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    model = torch.nn.Linear(4, 4, bias=False)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(model, make_optimizer(model, Optimization()), Progress(), {})
    found = checkpoints.newest()
    assert isinstance(found, artifacts.Artifact)
    with pytest.raises(ArtifactError, match="another model"):
        load_weights(torch.nn.Sequential(torch.nn.Linear(4, 4)), found)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    job = make_job(8, F32)
    with torch.no_grad():
        job.student.get_input_embeddings().weight.fill_(float("nan"))
    with pytest.raises(LimbeckError, match=r"not finite|changes its logits"):
        train(job, tmp_path)
