"""train: the student learns. The baseline is the same step with the labels in the teacher's place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from limbeck.core.artifacts import Artifact
from limbeck.core.parts import config_of
from limbeck.core.progress import is_main_process, show_table
from limbeck.core.recipe import Recipe, Stage, dump_recipe
from limbeck.data.dataset import Splits
from limbeck.models.load import check_length, origin, parameters
from limbeck.objectives.distribution.cross_entropy import CrossEntropy
from limbeck.pipeline._job import RunJob, model_inputs
from limbeck.pipeline._student import make_student, share_vocabulary
from limbeck.pipeline._teaching import Read, how_it_teaches, load_teachers, make_teacher
from limbeck.pipeline.cache import cached_teacher, teacher_shape
from limbeck.runtime import Card, write_card
from limbeck.runtime.guess import PRECISIONS
from limbeck.tasks import Codec, Task
from limbeck.tasks._traces import length_rows
from limbeck.tasks.causal_lm import CausalCodec
from limbeck.teachers.cached import CachedTeacher
from limbeck.teachers.local import LocalTeacher
from limbeck.teachers.remembering import RememberingTeacher
from limbeck.training.job import Job, StageJob
from limbeck.training.loop import train

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def train_student(
    job: RunJob,
    prepared: Artifact | None,
    name: Literal["train", "baseline"] = "train",
    recorded: Artifact | None = None,
) -> Artifact:
    """The artifact `train` (or `baseline`): `student/`, a Hugging Face folder, and the logs of its training.

    Args:
        job: the run.
        prepared: the teacher; None where the recipe has none.
        name: `baseline` trains the same student on the same batches by cross-entropy with the labels alone. It
            knows nothing of a teacher that was fine-tuned here: layers of it are taken as they were before.
        recorded: the teacher's signals, from `cache`; no teacher is loaded then, unless the student is cut from it.
    """
    recipe = job.recipe
    stages = list(recipe.stages)
    if name == "baseline":
        stages = [labels_only(s, alike=bool(recipe.generate) and s.data is None) for s in stages]
    inputs: dict[str, Any] = {
        "student": model_inputs(recipe.student),
        "stages": [dump_recipe(stage) for stage in stages],
        "training": plan_inputs(recipe),
        "seed": recipe.seed,
        **job.data_inputs(),
        "stage_rows": [job.data_inputs(stage.data) for stage in stages if stage.data is not None],
    }
    if name == "train" and recipe.training.gradient_cosine_steps is not None:
        # The same student comes out, but the log that `limbeck doctor` reads has the terms' gradients only then.
        inputs["gradient_cosine_steps"] = recipe.training.gradient_cosine_steps
    if name == "train" and recipe.teacher is not None:  # how it teaches; what it is, `prepare` knows
        inputs["teaching"] = [how_it_teaches(each) for each in (recipe.teacher, *recipe.teacher.also)]
    parents = {**({} if prepared is None else {"prepare": prepared}), **job.rows_from}
    if recorded is not None:
        parents["cache"] = recorded
    making = _Training(job, prepared, stages, name, recorded)
    return job.step(name, inputs, parents, making.work, together=True)


def labels_only(stage: Stage, *, alike: bool = False) -> Stage:
    """The stage without its teacher: cross-entropy, as smooth as before, and nothing else.

    Args:
        stage: a stage of the recipe.
        alike: whether to draw from all rows alike. A mixture or curriculum that was made for generated rows goes by
            columns that the given rows have not.
    """
    hard = next((term for term in stage.terms if isinstance(term, CrossEntropy)), CrossEntropy())
    alone = [CrossEntropy(label_smoothing=hard.label_smoothing)]
    order = {"mixture": None, "curriculum": None} if alike else {}
    return stage.model_copy(update={"terms": alone, "balance": None, "gate": None, "on_policy": None, **order})


def plan_inputs(recipe: Recipe) -> dict[str, Any]:
    """The part of `training` that a result depends on and that stages do not spell out."""
    return {"precision": recipe.training.precision}


def training_counts(splits: Splits) -> dict[str, Any]:
    """Counts of rows, but for the test rows, which training does not know."""
    return {name: count for name, count in splits.counts.items() if "test" not in name}


def show_lengths(stages: Sequence[StageJob]) -> None:
    """Print how long prompts, thoughts and answers are, where that is known, once for each set of rows."""
    seen: list[Any] = []
    for each in stages:
        lengths = each.train.facts.get("lengths")
        if lengths is not None and lengths not in seen:
            seen.append(lengths)
            show_table([{k: str(v) for k, v in row.items()} for row in length_rows(lengths)])


def save_model(model: PreTrainedModel, codec: Codec, folder: Path, task: Task) -> None:
    """A plain Hugging Face folder: config, safetensors, tokenizer or image processor; and how it is asked."""
    model.save_pretrained(folder, safe_serialization=True)
    codec.save(folder)
    precision = PRECISIONS.get(str(model.dtype).removeprefix("torch."), "fp32")
    write_card(Card(task=config_of(task), labels=codec.label_names, precision=precision), folder)


@dataclass
class _Training:
    """One student in the making."""

    job: RunJob
    prepared: Artifact | None
    stages: list[Stage]
    name: str
    recorded: Artifact | None = None

    def work(self, folder: Path) -> Mapping[str, Any]:
        job, recipe = self.job, self.job.recipe
        read = self._teachers(recipe.student.model == "from-teacher")
        made = make_student(job, read, self.name)
        read = self._teachers(False) if self.recorded is not None else read
        student, codec = made.model, made.codec
        self._check_answers(student, codec)
        stages = [job.stage_job(stage, codec, student) for stage in self.stages]
        show_lengths(stages)
        shared = share_vocabulary(job, made, read, stages)
        teacher = make_teacher(job, read, student, self.stages, made.head_rows, self._recorded(codec))
        plan = Job(
            title={"train": "student"}.get(self.name, self.name),
            student=student,
            codec=codec,
            stages=stages,
            training=recipe.training,
            seed=recipe.seed,
            unit=job.task.unit,
            teacher=teacher,
            shared=shared.ids,
            translate=made.translate,
            logs=job.output / "logs",
            writer=read[0] if type(teacher) in (LocalTeacher, RememberingTeacher) else None,
        )
        best = train(plan, folder)
        made.finish()
        if is_main_process():
            save_model(student, codec, folder / "student", job.task)
            made.save_beside(folder)
        lost = {s.stage.name: {"train": dict(s.train.counts), "validation": dict(s.validation.counts)} for s in stages}
        return {
            "model": self._origin(),
            "parameters": parameters(student),
            "counts": {**training_counts(job.splits), "lost": lost},
            "facts": {s.stage.name: dict(s.train.facts) for s in stages if s.train.facts},
            "best": best,
            "notes": [*([shared.note] if shared.note else []), *made.notes],
        }

    def _teachers(self, whole: bool) -> list[Read]:
        """The teachers; beside a recording only their shapes, unless the student is cut from them."""
        if self.recorded is None or self.prepared is None or whole:
            return load_teachers(self.job, self.prepared)
        return [teacher_shape(self.job, self.prepared)]

    def _recorded(self, codec: Codec) -> CachedTeacher | None:
        if self.recorded is None or self.prepared is None:
            return None
        return cached_teacher(self.job, self.prepared, self.recorded, codec.processor)

    def _check_answers(self, student: PreTrainedModel, codec: Codec) -> None:
        """Make sure before the training that the evaluation will have positions enough."""
        splits, plan = self.job.splits, self.job.recipe.evaluate
        rows = splits.test if plan.split == "test" else splits.validation
        check_length(student, max((f.length for f in codec.encode(rows).features), default=0), "the student")
        if isinstance(codec, CausalCodec) and codec.task.answer_pattern is not None:
            longest = max((len(codec.prompt_ids(sample)) for sample in rows), default=0)
            fix = "a smaller evaluate.max_new_tokens"
            check_length(student, longest + plan.max_new_tokens, "the student", "prompt and generated answer", fix)

    def _origin(self) -> dict[str, Any]:
        spec = self.job.recipe.student
        if spec.model != "from-teacher":
            return asdict(origin(spec))
        told = {} if self.prepared is None else dict(self.prepared.manifest["model"])
        made = {**spec.cuts, **({} if spec.compact is None else {"compact": spec.compact})}
        cuts = ", ".join(f"{name} {value}" for name, value in made.items())
        return {**told, "name": f"{cuts} of {told.get('name')}"}
