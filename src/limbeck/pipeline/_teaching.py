"""Who teaches: from a recipe's `teacher:` to the object that a training run asks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from limbeck.core.artifacts import Artifact
from limbeck.core.errors import DataError
from limbeck.core.recipe import Stage, Teacher, dump_recipe
from limbeck.core.recipe.training import asking
from limbeck.core.types import Sample
from limbeck.models.heads import check_head
from limbeck.models.load import folder_digest
from limbeck.pipeline._job import RunJob, device, model_inputs
from limbeck.tasks import Codec
from limbeck.teachers.ensemble import EnsembleTeacher
from limbeck.teachers.local import LocalTeacher, MovingTeacher
from limbeck.teachers.remembering import RememberingTeacher, memory_of
from limbeck.training.step import Teacher as Teaching

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Read = tuple["PreTrainedModel", Codec]
"""A model and the codec that makes its batches."""


def all_teachers(teacher: Teacher | None) -> list[Teacher]:
    """A recipe's teachers that have weights of their own, here."""
    return [] if teacher is None or teacher.is_moving or teacher.endpoint is not None else [teacher, *teacher.also]


HOW = ("decay", "remember", "combine", "weight", "domain", "domains")
"""Fields of a teacher that say how it teaches, and change nothing of what it is."""


def how_it_teaches(teacher: Teacher) -> dict[str, Any]:
    """What a student's training depends on besides the teacher itself."""
    return {name: value for name, value in dump_recipe(teacher).items() if name in HOW}


def what_it_is(teacher: Teacher) -> dict[str, Any]:
    """What a teacher's own making depends on."""
    inputs = model_inputs(teacher)
    return {**inputs, "model": {k: v for k, v in inputs["model"].items() if k not in (*HOW, "also")}}


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
    job: RunJob,
    read: Sequence[Read],
    student: PreTrainedModel,
    stages: Sequence[Stage],
    vocabulary: Tensor | None = None,
    recorded: Teaching | None = None,
) -> Teaching | None:
    """The teacher of a student's training, or None where no term asks for one.

    Args:
        job: the run.
        read: the teachers' models, from `load_teachers`.
        student: the model that learns.
        stages: what it learns.
        vocabulary: the teacher's id of each token of a student whose vocabulary was trimmed.
        recorded: the teacher that answers from a recording, where there is one.

    Raises:
        ModelError: a teacher changes its logits after the head.
        DataError: a row's domain has no teacher.
    """
    spec = job.recipe.teacher
    if spec is None or not any(map(asking, stages)):
        return None
    if recorded is not None:
        return recorded
    nn.Module.to(student, device())
    if spec.is_moving:
        return MovingTeacher(student, spec.decay, device())
    for model, own in read:
        encoded = (own.encode([sample]).features for sample in job.splits.train)
        if few := next(filter(None, encoded), None):  # the first row that is not too long
            check_head(model, own.collate(few).to(device()), "the teacher")
    alone = len(read) == 1
    members = [
        _member(model, each, vocabulary, alone) for (model, _), each in zip(read, all_teachers(spec), strict=True)
    ]
    return members[0] if alone else together(spec, members, trained_rows(job, stages))


def _member(model: PreTrainedModel, spec: Teacher, vocabulary: Tensor | None, alone: bool) -> LocalTeacher:
    if not spec.remember:
        return LocalTeacher(model, device(), vocabulary)
    folder = Path(str(model.name_or_path))
    memory = memory_of(f"{folder_digest(folder)} {model.dtype}") if alone and folder.is_dir() else None
    return RememberingTeacher(model, device(), memory, vocabulary)


def together(spec: Teacher, members: Sequence[LocalTeacher], rows: Iterable[Sample]) -> EnsembleTeacher:
    """Several teachers as one.

    Args:
        spec: the first teacher's section, which says how they teach together.
        members: the teachers.
        rows: all that they will be asked about.

    Raises:
        DataError: a row's domain has no teacher.
    """
    weights = [each.weight for each in all_teachers(spec)]
    return EnsembleTeacher(members, spec.combine, weights, routes(spec, rows))


def routes(spec: Teacher, rows: Iterable[Sample]) -> dict[str, int]:
    """By sample id, the place of the teacher that knows the sample's domain; empty unless domains decide.

    Raises:
        DataError: a row's domain has no teacher.
    """
    if spec.combine != "domain":
        return {}
    assert spec.domain is not None
    by_domain: dict[Any, int] = {}
    rest: int | None = None
    for i, each in enumerate(all_teachers(spec)):
        by_domain |= dict.fromkeys(each.domains, i)
        rest = rest if each.domains else i
    found_by_id: dict[str, int] = {}
    for sample in rows:
        if spec.domain not in sample.meta:
            raise DataError(
                f"a row has no '{spec.domain}', which should say its domain",
                got=sample.id,
                allowed=", ".join(map(str, sample.meta)) or "no column is left that could say it",
                fix="teacher.domain=COLUMN",
            )
        found = by_domain.get(str(sample.meta[spec.domain]), rest)
        if found is None:
            raise DataError(
                "a row's domain has no teacher",
                got=f"{sample.meta[spec.domain]!r} ({sample.id})",
                allowed=", ".join(by_domain),
                fix="a teacher without `domains` takes all others",
            )
        if found_by_id.setdefault(sample.id, found) != found:
            raise DataError(
                "two rows of different domains have one id, so that it is unclear which teacher is meant",
                got=sample.id,
                fix="data.id=COLUMN",
            )
    return found_by_id


def trained_rows(job: RunJob, stages: Sequence[Stage]) -> list[Sample]:
    """The training rows of some stages."""
    return [sample for each in stages for sample in job.stage_rows(each).train]
