"""The student before its training: new, loaded, or cut from its teacher; and how a teacher reads its batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from limbeck.alignment.vocabulary import Shared, refuse_unshared_inputs, shared_vocabulary
from limbeck.core.artifacts import write_json
from limbeck.core.errors import ModelError
from limbeck.core.progress import show
from limbeck.core.types import IGNORE, Batch, Sample
from limbeck.models.compact.convert import from_pretrained_model
from limbeck.models.shrink import ShrinkPlan, Shrunk, as_rich, parameter_table, save_token_map, shrink, teacher_ids
from limbeck.models.shrink.table import Row
from limbeck.pipeline._job import RunJob
from limbeck.pipeline._teaching import Read, all_teachers, trained_rows
from limbeck.tasks import Codec
from limbeck.tasks._paired import PairedCodec, matched_share
from limbeck.tasks.causal_lm import CausalCodec
from limbeck.training.job import StageJob

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

    @property
    def head_rows(self) -> Tensor | None:
        """Of a language model with a trimmed vocabulary, the rows of the teacher's output matrix that it kept."""
        return None if self.model.get_output_embeddings() is None else self.token_map

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
    torch.manual_seed(job.recipe.seed)  # whatever was drawn before, by this step or by another
    made = _cut(job, read, name) if spec.model == "from-teacher" else _new(job, read)
    rows = _embeddings(made.model)
    made.codec = made.codec.prepare(made.model)
    if made.token_map is not None and len(made.token_map) < len(made.codec.processor):
        raise ModelError("the task adds tokens to a trimmed vocabulary, which the teacher could not read")
    if spec.lora is not None:
        from limbeck.models.adapters import add_lora

        if _embeddings(made.model) > rows:
            raise ModelError(
                "the task adds tokens, whose new embeddings would not learn beside LoRA",
                fix="student.lora=null, or a student that knows the tokens already",
            )
        add_lora(made.model, spec.lora)
        made.adapted = True
    return made


def _embeddings(model: PreTrainedModel) -> int:
    """Rows of the word embeddings; zero for models without words."""
    return len(model.get_input_embeddings().weight) if model.main_input_name == "input_ids" else 0  # type: ignore[arg-type]


def _new(job: RunJob, read: Sequence[Read]) -> NewStudent:
    spec = job.recipe.student
    processor = job.processor(spec, read[0][1].processor if read else None)
    _refuse_other_reading(job, processor, read, f"student {spec.model or 'from a config'}")
    codec = job.task.codec(processor, job.label_names)
    if terms := [t for stage in job.recipe.stages for t in stage.terms if getattr(t, "matches_text", False)]:
        codec = _paired(codec, read, max(term.longest for term in terms))  # type: ignore[attr-defined]
    return NewStudent(job.new_model(spec, codec, trained=True, new_head=True), codec)


def _refuse_other_reading(job: RunJob, processor: Any, read: Sequence[Read], who: str) -> None:
    for (_, other), spec in zip(read, all_teachers(job.recipe.teacher), strict=True):
        if not job.task.same_reading(processor, other.processor):
            raise ModelError(
                "student and teacher read the same row differently (tokenizer or image processor)",
                got=f"{who}, teacher {spec.model or 'from a config'}",
                fix="student.tokenizer=THE TEACHER'S",
            )


def _paired(codec: Codec, read: Sequence[Read], longest: int) -> Codec:
    """A codec that reads each text with the student's tokenizer and with the teacher's."""
    teacher = read[0][1]
    assert isinstance(codec, CausalCodec), "check_recipe refuses other tasks"
    assert isinstance(teacher, CausalCodec)
    return PairedCodec(codec.processor, teacher, longest)


def _cut(job: RunJob, read: Sequence[Read], name: str) -> NewStudent:
    """A student that is cut from the first teacher."""
    spec, asked = job.recipe.student, job.recipe.teacher
    given, codec = read[0]
    _refuse_other_reading(job, codec.processor, read, "the first teacher, which the student is cut from")
    if name == "baseline" and asked is not None and asked.finetune is not None:
        # What the teacher learned here is the teacher's; without it there is only the model it began as.
        given = job.new_model(asked, codec, trained=True, new_head=True)
    used: set[int] = set()
    if spec.vocabulary is not None:
        used = _used_ids(codec, trained_rows(job, job.recipe.stages))
    cut = Shrunk(given, codec.processor, None, ())
    if spec.cuts:
        cut = shrink(given, codec.processor, ShrinkPlan(**spec.cuts), used)
    if spec.compact is not None:
        model, report = from_pretrained_model(cut.model, **spec.compact)
        cut = replace(cut, model=model, notes=(*cut.notes, *str(report).splitlines()))
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


def _used_ids(codec: Codec, rows: Sequence[Sample]) -> set[int]:
    """Every token that is read or learned; the last one of a row is only learned."""
    used: set[int] = set()
    for feature in codec.encode(rows).features:
        used.update(feature.values.get("input_ids", ()))
        if isinstance(codec, CausalCodec):
            used.update(i for i in feature.values["labels"] if i != IGNORE)
    return used


def _trimmed(head_rows: Tensor, read: Sequence[Read]) -> Shared:
    """Every row of the student is one of the teachers', which are asked about these alone."""
    if any(codec.processor.get_vocab() != read[0][1].processor.get_vocab() for _, codec in read[1:]):
        raise ModelError("the student's vocabulary is trimmed, and its teachers have different ones")
    given = read[0][0].config.get_text_config().vocab_size
    note = f"the teacher speaks over the {len(head_rows):,} of its {given:,} vocabulary rows that the student kept"
    return Shared(None, f"{note}, renormalised")


def share_vocabulary(job: RunJob, made: NewStudent, read: Sequence[Read], stages: Sequence[StageJob]) -> Shared:
    """Compare the vocabularies of language models; classifiers share their classes by name.

    Raises:
        ModelError: they differ in more than padding and special tokens, or differ between teachers.
    """
    if isinstance(made.codec, PairedCodec):
        share = matched_share(feature for stage in stages for feature in stage.train.features)
        return Shared(None, f"{share:.1%} of the answers' tokens are in stretches that both tokenizers cut")
    if made.head_rows is not None:
        return _trimmed(made.head_rows, read)
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
