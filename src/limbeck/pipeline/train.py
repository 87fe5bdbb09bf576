"""train: the student learns. The baseline is the same step with the labels in the teacher's place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from limbeck.alignment.vocabulary import Shared, refuse_unshared_inputs, shared_vocabulary
from limbeck.core.artifacts import Artifact
from limbeck.core.errors import ModelError
from limbeck.core.progress import is_main_process
from limbeck.core.recipe import Recipe, Stage, dump_recipe
from limbeck.data.dataset import Splits
from limbeck.models.heads import check_head
from limbeck.models.load import check_length, origin, parameters
from limbeck.models.shrink import keep_layers
from limbeck.objectives.cross_entropy import CrossEntropy
from limbeck.pipeline._job import RunJob, device, model_inputs
from limbeck.tasks import Codec
from limbeck.tasks.causal_lm import CausalCodec
from limbeck.teachers.local import LocalTeacher
from limbeck.training.loop import Job, StageJob, train

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def train_student(job: RunJob, prepared: Artifact | None, name: Literal["train", "baseline"] = "train") -> Artifact:
    """The artifact `train` (or `baseline`): `student/`, a Hugging Face folder, and the logs of its training.

    Args:
        job: the run.
        prepared: the teacher; None where the recipe has none.
        name: `baseline` trains the same student on the same batches by cross-entropy with the labels alone. It
            knows nothing of a teacher that was fine-tuned here: layers of it are taken as they were before.
    """
    recipe = job.recipe
    stages = [labels_only(s) for s in recipe.stages] if name == "baseline" else list(recipe.stages)
    inputs = {
        "student": model_inputs(recipe.student),
        "stages": [dump_recipe(stage) for stage in stages],
        "training": plan_inputs(recipe),
        "seed": recipe.seed,
        **job.data_inputs(),
        "stage_rows": [job.data_inputs(stage.data) for stage in stages if stage.data is not None],
    }
    parents = {} if prepared is None else {"prepare": prepared}
    making = _Training(job, prepared, stages, name)
    return job.step(name, inputs, parents, making.work, together=True)


def labels_only(stage: Stage) -> Stage:
    """The stage without its teacher: cross-entropy, as smooth as before, and nothing else."""
    hard = next((term for term in stage.terms if isinstance(term, CrossEntropy)), CrossEntropy())
    return stage.model_copy(update={"terms": [CrossEntropy(label_smoothing=hard.label_smoothing)]})


def plan_inputs(recipe: Recipe) -> dict[str, Any]:
    """The part of `training` that a result depends on and that stages do not spell out."""
    return {"precision": recipe.training.precision}


def training_counts(splits: Splits) -> dict[str, Any]:
    """Counts of rows, but for the test rows, which training does not know."""
    return {name: count for name, count in splits.counts.items() if "test" not in name}


def save_model(model: PreTrainedModel, codec: Codec, folder: Path) -> None:
    """A plain Hugging Face folder: config, safetensors, tokenizer or image processor."""
    model.save_pretrained(folder, safe_serialization=True)
    codec.save(folder)


@dataclass
class _Training:
    """One student in the making."""

    job: RunJob
    prepared: Artifact | None
    stages: list[Stage]
    name: str

    def work(self, folder: Path) -> Mapping[str, Any]:
        job, recipe = self.job, self.job.recipe
        teacher, teacher_codec = (None, None) if self.prepared is None else job.teacher(self.prepared)
        codec = self._codec(teacher_codec)
        student = self._student(teacher, codec)
        self._check_answers(student, codec)
        shared, stages = Shared(None, ""), [job.stage_job(stage, codec, student) for stage in self.stages]
        if teacher is not None and teacher_codec is not None:
            shared = self._shared(student, codec, teacher, teacher_codec, stages)
        asks = any(getattr(term, "asks_teacher", False) for stage in self.stages for term in stage.terms)
        if not asks:
            teacher = None
        elif teacher is not None:
            few = codec.collate(stages[0].train.features[:1]).to(device())
            check_head(teacher, few, "the teacher")
        plan = Job(
            title={"train": "student"}.get(self.name, self.name),
            student=student,
            codec=codec,
            stages=stages,
            training=recipe.training,
            seed=recipe.seed,
            unit=job.task.unit,
            teacher=None if teacher is None else LocalTeacher(teacher, device()),
            shared=shared.ids,
            logs=job.output / "logs",
        )
        best = train(plan, folder)
        if is_main_process():
            save_model(student, codec, folder / "student")
        lost = {s.stage.name: {"train": dict(s.train.counts), "validation": dict(s.validation.counts)} for s in stages}
        return {
            "model": self._origin(),
            "parameters": parameters(student),
            "counts": {**training_counts(job.splits), "lost": lost},
            "best": best,
            "notes": [shared.note] if shared.note else [],
        }

    def _check_answers(self, student: PreTrainedModel, codec: Codec) -> None:
        """Make sure before the training that the evaluation will have positions enough."""
        splits, plan = self.job.splits, self.job.recipe.evaluate
        rows = splits.test if plan.split == "test" else splits.validation
        check_length(student, max((f.length for f in codec.encode(rows).features), default=0), "the student")
        if isinstance(codec, CausalCodec) and codec.task.answer_pattern is not None:
            longest = max((len(codec.prompt_ids(sample)) for sample in rows), default=0)
            fix = "a smaller evaluate.max_new_tokens"
            check_length(student, longest + plan.max_new_tokens, "the student", "prompt and generated answer", fix)

    def _codec(self, teacher_codec: Codec | None) -> Codec:
        job, spec = self.job, self.job.recipe.student
        processor = job.processor(spec, None if teacher_codec is None else teacher_codec.processor)
        if teacher_codec is not None and not job.task.same_reading(processor, teacher_codec.processor):
            raise ModelError(
                "student and teacher read the same row differently (tokenizer or image processor)",
                got=f"student {spec.model or 'from a config'}, teacher {job.recipe.teacher}",
                fix="student.tokenizer=THE TEACHER'S",
            )
        return job.task.codec(processor, job.label_names)

    def _student(self, teacher: PreTrainedModel | None, codec: Codec) -> PreTrainedModel:
        spec = self.job.recipe.student
        if spec.dtype not in ("auto", "float32"):
            what = "a student's weights are float32 while they are trained"
            raise ModelError(what, got=spec.dtype, fix="training.precision=bf16")
        if spec.model == "from-teacher":
            given, asked = teacher, self.job.recipe.teacher
            if self.name == "baseline" and asked is not None and asked.finetune is not None:
                # What the teacher learned here is the teacher's; without it there is only the model it began as.
                given = self.job.new_model(asked, codec, trained=True, new_head=True)
            assert given is not None
            assert spec.layers is not None
            return keep_layers(given, spec.layers).float()
        return self.job.new_model(spec, codec, trained=True, new_head=True)

    def _shared(
        self,
        student: PreTrainedModel,
        codec: Codec,
        teacher: PreTrainedModel,
        teacher_codec: Codec,
        stages: list[StageJob],
    ) -> Shared:
        """Compare the vocabularies of language models; classifiers share their classes by name."""
        heads = student.get_output_embeddings(), teacher.get_output_embeddings()
        if heads[0] is None or heads[1] is None:
            return Shared(None, "")
        recipe = self.job.recipe
        names = (
            str(recipe.student.model or "from a config"),
            str((recipe.teacher and recipe.teacher.model) or "from a config"),
        )
        rows = [int(head.weight.shape[0]) for head in heads]
        shared = shared_vocabulary(codec.processor, rows[0], teacher_codec.processor, rows[1], names)
        used = {i for stage in stages for f in stage.train.features for i in f.values["input_ids"]}
        refuse_unshared_inputs(sorted(used), shared, codec.processor.convert_ids_to_tokens, names)
        return shared

    def _origin(self) -> dict[str, Any]:
        spec = self.job.recipe.student
        if spec.model != "from-teacher":
            return asdict(origin(spec))
        told = {} if self.prepared is None else dict(self.prepared.manifest["model"])
        return {**told, "name": f"layers {spec.layers} of {told.get('name')}"}
