"""Curricula by the student's loss: what is measured, what order it makes, and that kills change nothing."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from limbeck.core.errors import RecipeError, TrainingError
from limbeck.core.recipe import Stage
from limbeck.core.types import IGNORE, Batch, Needs, Signal
from limbeck.data.curriculum.buckets import Buckets
from limbeck.objectives.distribution.kl import KL
from limbeck.tasks import Feature
from limbeck.teachers.local import LocalTeacher
from limbeck.training.loop import Job, train
from limbeck.training.row_losses import row_losses
from tests.training.augmented import picture_codec, pictures, vit
from tests.training.ragged import losses, make_job

F32 = torch.float32
BATCH = 7


def engine(rank: int = 0, world: int = 1, reduce: Any = lambda mine, how: mine) -> Any:
    return SimpleNamespace(
        num_processes=world, process_index=rank, device=torch.device("cpu"), autocast=nullcontext, reduce=reduce
    )


def by_hand(job: Job, feature: Feature) -> float:
    """A row alone through the model: cross-entropy of torch, a mean over its labels."""
    batch = job.codec.collate([feature])
    with torch.no_grad():
        logits = job.student.eval()(**batch.inputs).logits
    return float(torch.nn.functional.cross_entropy(logits.flatten(0, -2), batch.labels.flatten(), ignore_index=IGNORE))


@pytest.mark.parametrize("packing", [False, True])
def test_a_language_models_loss_is_a_mean_over_each_rows_labels(packing: bool) -> None:
    job = make_job(8, F32)
    features = job.stages[0].train.features
    wanted = [by_hand(job, feature) for feature in features]
    layer = job.student.model.layers[0].self_attn
    layer.attention_dropout = 0.5
    job.student.train()
    if packing:
        job.codec = replace(job.codec.task, packing=True, max_length=128).codec(  # type: ignore[attr-defined]
            job.codec.processor, None
        )
        assert job.codec.collate(features[:BATCH]).packed is not None
    found = row_losses(engine(), job.student, job.codec, features, BATCH)
    assert found == pytest.approx(wanted, rel=1e-4)
    assert len({round(loss, 4) for loss in found}) > 30


def test_a_classifiers_loss_is_its_cross_entropy() -> None:
    codec, model = picture_codec(), vit(0)
    features = codec.encode(pictures(10)).features
    batch = codec.collate(features)
    with torch.no_grad():
        logits = model.eval()(**batch.inputs).logits
    wanted = torch.nn.functional.cross_entropy(logits, batch.labels, reduction="none").tolist()
    assert row_losses(engine(), model, codec, features, 4) == pytest.approx(wanted, rel=1e-4)


def test_the_number_of_processes_changes_no_bit() -> None:
    job = make_job(8, F32)
    given = (job.student, job.codec, job.stages[0].train.features, BATCH)
    parts: list[torch.Tensor] = []

    def gather(mine: torch.Tensor, how: str) -> torch.Tensor:  # one after the other; the last one has all
        parts.append(mine)
        return torch.stack(parts).sum(0)

    found = [row_losses(engine(rank, 3, gather), *given) for rank in range(3)]
    assert found[0].count(0) > 20
    assert found[2] == row_losses(engine(), *given)


def test_a_loss_that_is_not_finite_names_its_row() -> None:
    job = make_job(8, F32)
    with torch.no_grad():
        job.student.model.norm.weight.fill_(float("inf"))
    features = job.stages[0].train.features
    with pytest.raises(TrainingError, match="not finite on 40 of 40") as caught:
        row_losses(engine(), job.student, job.codec, features, BATCH)
    assert features[0].id in str(caught.value)


class _Watching(LocalTeacher):
    """A teacher that remembers what it was asked about, and may pull the plug."""

    def __init__(self, model: Any, after: int | None):
        super().__init__(model)
        self.seen: list[Batch] = []
        self.after = after

    def signal(self, batch: Batch, needs: Needs) -> Signal:
        if len(self.seen) == self.after:
            raise KeyboardInterrupt
        self.seen.append(batch)
        return super().signal(batch, needs)


def staged(stop: int | None = None, save_steps: int = 100) -> Job:
    """A stage of two steps, then one that sees each row once, from the easiest to the most difficult ones."""
    job = make_job(8, F32, 2, save_steps=save_steps)
    first = job.stages[0]
    curriculum = Buckets(difficulty="student_loss", buckets=5)
    plan = {"name": "sorted", "curriculum": curriculum, "max_steps": 5, "eval_steps": 5, "terms": [KL()]}
    job.stages = [first, replace(first, stage=Stage(**{**dict(first.stage), **plan}))]
    assert isinstance(job.teacher, LocalTeacher)
    job.teacher = _Watching(job.teacher.model, stop)
    return job


def run(job: Job, folder: Path) -> list[Batch]:
    """Train, and tell what batches there were."""
    folder.mkdir(exist_ok=True)
    train(job, folder)
    assert isinstance(job.teacher, _Watching)
    return job.teacher.seen


def test_rows_come_by_the_loss_of_the_student_that_the_stage_begins_with(tmp_path: Path) -> None:
    alone = make_job(8, F32, 2)
    features = alone.stages[0].train.features
    new = row_losses(engine(), alone.student, alone.codec, features, 64)
    (tmp_path / "alone").mkdir()
    train(alone, tmp_path / "alone")  # its best weights are what the second stage begins with
    told = row_losses(engine(), alone.student, alone.codec, features, 64)
    order = sorted(range(40), key=told.__getitem__)
    assert order != sorted(range(40), key=new.__getitem__)
    seen = [batch.ids for batch in run(staged(), tmp_path / "staged")[2:]]
    for bucket in range(5):
        assert set(seen[bucket]) == {features[i].id for i in order[8 * bucket : 8 * bucket + 8]}


def test_a_kill_within_the_stage_changes_nothing(tmp_path: Path) -> None:
    whole = staged()
    batches = run(whole, tmp_path / "whole")
    for name, stop, save_steps, redone in (("before its first checkpoint", 4, 100, 5), ("after it", 5, 1, 2)):
        folder = tmp_path / name
        with pytest.raises(KeyboardInterrupt):
            run(staged(stop, save_steps), folder)
        rest = staged()
        seen = run(rest, folder)
        assert [batch.ids for batch in seen] == [batch.ids for batch in batches[-redone:]]
        assert losses(folder) == losses(tmp_path / "whole")
        ours, theirs = rest.student.state_dict(), whole.student.state_dict()
        assert all(torch.equal(ours[key], value) for key, value in theirs.items()), name


def test_a_column_of_the_rows_comes_first(tmp_path: Path) -> None:
    job = staged()
    each = job.stages[1]
    features = []
    for i, feature in enumerate(each.train.features):
        assert feature.source is not None
        features.append(replace(feature, source=replace(feature.source, meta={"student_loss": i})))
    job.stages = [replace(each, train=replace(each.train, features=features))]
    seen = [batch.ids for batch in run(job, tmp_path)]
    assert set(seen[0]) == {f.id for f in features[:8]}
    assert set(seen[-1]) == {f.id for f in features[-8:]}


def test_a_student_that_knows_nothing_of_any_row_is_refused(tmp_path: Path) -> None:
    job = staged()
    job.stages = job.stages[1:]
    with torch.no_grad():
        for weights in job.student.parameters():
            weights.zero_()
    with pytest.raises(RecipeError, match="all rows are equally difficult by `student_loss`"):
        run(job, tmp_path)
