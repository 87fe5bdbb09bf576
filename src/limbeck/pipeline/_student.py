"""The student before its training: new, loaded, or cut from its teacher; and how a teacher reads its batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from limbeck.alignment.vocabulary import Shared, refuse_unshared_inputs, shared_vocabulary
from limbeck.core.artifacts import write_json
from limbeck.core.errors import ModelError
from limbeck.core.progress import show
from limbeck.core.types import Batch
from limbeck.models.shrink import ShrinkPlan, as_rich, parameter_table, save_token_map, shrink, teacher_ids
from limbeck.models.shrink.table import Row
from limbeck.pipeline._job import RunJob
from limbeck.pipeline._teaching import Read
from limbeck.tasks import Codec
from limbeck.tasks._paired import PairedCodec
from limbeck.tasks.causal_lm import CausalCodec
from limbeck.training.loop import StageJob

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass
class NewStudent:
    """A student that is about to be trained.

    Attributes:
        model: it.
        codec: makes its batches.
        translate: gives a batch what the teacher reads in place of the student's ids; None: the same ids.
        token_map: the teacher's id of each of the student's; None: the same ids.
        adapted: whether it learns through LoRA matrices, which `finish` merges.
        table: where the parameters went, for a student that was cut from its teacher.
        notes: what is only approximately kept, for the manifest.
    """

    model: PreTrainedModel
    codec: Codec
    translate: Callable[[Batch], Batch] | None = None
    token_map: Tensor | None = None
    adapted: bool = False
    table: Sequence[Row] = ()
    notes: tuple[str, ...] = ()

    def finish(self) -> None:
        """After the training: a plain model again."""
        if self.adapted:
            from limbeck.models.adapters import merge_lora

            merge_lora(self.model)

    def save_beside(self, folder: Path) -> None:
        """Files about the student that are no part of the model."""
        if self.token_map is not None:
            save_token_map(self.token_map, folder / "student")
        if self.table:
            write_json(folder / "parameters.json", [asdict(row) for row in self.table])


def make_student(job: RunJob, read: Sequence[Read], name: str) -> NewStudent:
    """The student of a run, or its baseline, with weights that are about to be trained.

    Args:
        job: the run.
        read: the teachers, from `load_teachers`.
        name: `train` or `baseline`.

    Raises:
        ModelError: it cannot be made, or student and teacher read a row differently.
    """
    spec = job.recipe.student
    if spec.dtype not in ("auto", "float32"):
        what = "a student's weights are float32 while they are trained"
        raise ModelError(what, got=spec.dtype, fix="training.precision=bf16")
    made = _cut(job, read, name) if spec.model == "from-teacher" else _new(job, read)
    made.codec = made.codec.prepare(made.model)
    if spec.lora is not None:
        from limbeck.models.adapters import add_lora

        add_lora(made.model, spec.lora)
        made.adapted = True
    return made


def _new(job: RunJob, read: Sequence[Read]) -> NewStudent:
    spec = job.recipe.student
    processor = job.processor(spec, read[0][1].processor if read else None)
    for _, other in read:
        if not job.task.same_reading(processor, other.processor):
            raise ModelError(
                "student and teacher read the same row differently (tokenizer or image processor)",
                got=f"student {spec.model or 'from a config'}, teacher {job.recipe.teacher}",
                fix="student.tokenizer=THE TEACHER'S",
            )
    codec = job.task.codec(processor, job.label_names)
    if terms := [t for stage in job.recipe.stages for t in stage.terms if getattr(t, "matches_text", False)]:
        codec = _paired(job, codec, read, max(term.longest for term in terms))  # type: ignore[attr-defined]
    return NewStudent(job.new_model(spec, codec, trained=True, new_head=True), codec)


def _paired(job: RunJob, codec: Codec, read: Sequence[Read], longest: int) -> Codec:
    """A codec that reads each text with the student's tokenizer and with the teacher's."""
    if type(codec) is not CausalCodec or len(read) != 1:
        raise ModelError(
            "likelihoods of stretches are matched between language models, with one teacher",
            got=f"{job.task.type()}, {len(read)} teachers",
        )
    asking = [t.type() for stage in job.recipe.stages for t in stage.terms if getattr(t, "asks_teacher", False)]
    if other := [name for name in asking if name != "likelihood_matching"]:
        what = "tokenizers differ, so that these terms have nothing to compare position by position"
        raise ModelError(what, got=", ".join(other), allowed="likelihood_matching, and terms that ask no teacher")
    teacher = read[0][1]
    assert isinstance(teacher, CausalCodec)
    return PairedCodec(codec.processor, teacher, longest)


def _cut(job: RunJob, read: Sequence[Read], name: str) -> NewStudent:
    """A student that is cut from the first teacher."""
    spec, asked = job.recipe.student, job.recipe.teacher
    given, codec = read[0]
    if name == "baseline" and asked is not None and asked.finetune is not None:
        # What the teacher learned here is the teacher's; without it there is only the model it began as.
        given = job.new_model(asked, codec, trained=True, new_head=True)
    used: set[int] = set()
    if spec.vocabulary is not None:
        rows = [each for stage in job.recipe.stages for each in job.stage_rows(stage).train]
        used = {i for feature in codec.encode(rows).features for i in feature.values.get("input_ids", ())}
    cut = shrink(given, codec.processor, ShrinkPlan(**spec.cuts), used)
    table = parameter_table(given, cut.model)
    show(as_rich(table))
    student = cut.model.float()
    if cut.token_map is None:
        return NewStudent(student, codec, table=table, notes=cut.notes)
    own, token_map = job.task.codec(cut.tokenizer, job.label_names), cut.token_map

    def translate(batch: Batch) -> Batch:
        ids = teacher_ids(token_map, batch.inputs["input_ids"])
        return replace(batch, teacher=replace(batch, inputs={**batch.inputs, "input_ids": ids}))

    return NewStudent(student, own, translate, token_map, table=table, notes=cut.notes)


def share_vocabulary(job: RunJob, made: NewStudent, read: Sequence[Read], stages: Sequence[StageJob]) -> Shared:
    """Compare the vocabularies of language models; classifiers share their classes by name.

    Raises:
        ModelError: they differ in more than padding and special tokens, or differ between teachers.
    """
    if isinstance(made.codec, PairedCodec):
        return Shared(
            None, f"{made.codec.coverage:.1%} of the answers' tokens are in stretches that both tokenizers cut"
        )
    found: list[Shared] = []
    for teacher, teacher_codec in read:
        heads = made.model.get_output_embeddings(), teacher.get_output_embeddings()
        if heads[0] is None or heads[1] is None:
            return Shared(None, "")
        recipe = job.recipe
        names = (
            str(recipe.student.model or "from a config"),
            str((recipe.teacher and recipe.teacher.model) or "from a config"),
        )
        rows = [int(head.weight.shape[0]) for head in heads]
        shared = shared_vocabulary(made.codec.processor, rows[0], teacher_codec.processor, rows[1], names)
        used = {i for stage in stages for f in stage.train.features for i in f.values["input_ids"]}
        refuse_unshared_inputs(sorted(used), shared, made.codec.processor.convert_ids_to_tokens, names)
        found.append(shared)
    if not found:
        return Shared(None, "")
    listed = [None if each.ids is None else each.ids.tolist() for each in found]
    if any(ids != listed[0] for ids in listed):
        raise ModelError("the teachers share different parts of the student's vocabulary", got=found[-1].note)
    return found[0]
