"""Who teaches: from a recipe's `teacher:` to the object that a training run asks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from limbeck.core.artifacts import Artifact
from limbeck.core.errors import DataError, ModelError
from limbeck.core.recipe import Teacher
from limbeck.core.types import Sample
from limbeck.models.heads import check_head
from limbeck.models.load import folder_digest
from limbeck.pipeline._job import RunJob, device
from limbeck.tasks import Codec
from limbeck.teachers.ensemble import EnsembleTeacher
from limbeck.teachers.local import LocalTeacher, MovingTeacher
from limbeck.teachers.remembering import RememberingTeacher, memory_of
from limbeck.training.loop import StageJob
from limbeck.training.step import Teacher as Teaching

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Read = tuple["PreTrainedModel", Codec]
"""A model and the codec that makes its batches."""


def all_teachers(teacher: Teacher | None) -> list[Teacher]:
    """A recipe's teachers that have weights of their own."""
    return [] if teacher is None or teacher.is_moving else [teacher, *teacher.also]


def folder_of(place: int) -> str:
    """The folder, in the artifact `prepare`, of the teacher at a place of `all_teachers`."""
    return "teacher" if place == 0 else f"teacher-{place + 1}"


def load_teachers(job: RunJob, prepared: Artifact | None) -> list[Read]:
    """The models of a recipe's teachers, ready to be asked; none where it has none, or is its own."""
    if prepared is None:
        return []
    teachers = all_teachers(job.recipe.teacher)
    return [job.teacher(prepared, spec, folder_of(i)) for i, spec in enumerate(teachers)]


def make_teacher(
    job: RunJob, read: Sequence[Read], student: PreTrainedModel, stages: Sequence[StageJob], codec: Codec
) -> Teaching | None:
    """The teacher of a student's training, or None where no term asks for one.

    Args:
        job: the run.
        read: the teachers' models, from `load_teachers`.
        student: the model that learns.
        stages: what it learns, with rows.
        codec: makes the student's batches.

    Raises:
        ModelError: a teacher changes its logits after the head.
        DataError: a row's domain has no teacher.
    """
    spec = job.recipe.teacher
    if spec is None or not any(getattr(t, "asks_teacher", False) for each in stages for t in each.stage.terms):
        return None
    nn.Module.to(student, device())
    if spec.is_moving:
        return MovingTeacher(student, spec.decay, device())
    for model, own in read:
        few = own.collate(own.encode(job.splits.train[:1]).features).to(device())
        check_head(model, few, "the teacher")
    members = [_member(model, each) for (model, _), each in zip(read, all_teachers(spec), strict=True)]
    if len(members) == 1:
        return members[0]
    weights = [each.weight for each in all_teachers(spec)]
    return EnsembleTeacher(members, spec.combine, weights, _routes(job, spec, stages))


def _member(model: PreTrainedModel, spec: Teacher) -> LocalTeacher:
    if not spec.remember:
        return LocalTeacher(model, device())
    folder = Path(str(model.name_or_path))
    memory = memory_of(folder_digest(folder)) if folder.is_dir() and not spec.also else None
    return RememberingTeacher(model, device(), memory)


def _routes(job: RunJob, spec: Teacher, stages: Sequence[StageJob]) -> dict[str, int]:
    """By sample id, the teacher that knows the sample's domain."""
    if spec.combine != "domain":
        return {}
    assert spec.domain is not None
    by_domain: dict[Any, int] = {}
    rest: int | None = None
    for i, each in enumerate(all_teachers(spec)):
        by_domain |= dict.fromkeys(each.domains, i)
        rest = rest if each.domains else i
    routes: dict[str, int] = {}
    for sample in _rows(job, stages):
        if spec.domain not in sample.meta:
            raise DataError(f"a row has no '{spec.domain}', which should say its domain", got=sample.id)
        found = by_domain.get(str(sample.meta[spec.domain]), rest)
        if found is None:
            raise DataError(
                "a row's domain has no teacher",
                got=f"{sample.meta[spec.domain]!r} ({sample.id})",
                allowed=", ".join(by_domain),
                fix="a teacher without `domains` takes all others",
            )
        routes[sample.id] = found
    return routes


def _rows(job: RunJob, stages: Sequence[StageJob]) -> list[Sample]:
    own = [job.splits if each.stage.data is None else job.stage_splits(each.stage.data) for each in stages]
    return [sample for splits in own for sample in splits.train]


def refuse_other_classes(job: RunJob, read: Sequence[Read]) -> None:
    """Make sure that all teachers have the same classes in the same order.

    Raises:
        ModelError: they have not.
    """
    for _, codec in read[1:]:
        if codec.label_names != read[0][1].label_names:
            raise ModelError("the teachers have different classes", got=f"{codec.label_names} and {job.label_names}")
