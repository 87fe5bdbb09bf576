"""train: the student learns. The baseline is the same step with the labels in the teacher's place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from limbeck.core.artifacts import Artifact
from limbeck.core.progress import is_main_process
from limbeck.core.recipe import Recipe, Stage, dump_recipe
from limbeck.data.dataset import Splits
from limbeck.models.load import check_length, origin, parameters
from limbeck.objectives.distribution.cross_entropy import CrossEntropy
from limbeck.pipeline._job import RunJob, model_inputs
from limbeck.pipeline._student import make_student, share_vocabulary
from limbeck.pipeline._teaching import how_it_teaches, load_teachers, make_teacher
from limbeck.tasks import Codec
from limbeck.tasks.causal_lm import CausalCodec
from limbeck.training.loop import Job, train

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
    inputs: dict[str, Any] = {
        "student": model_inputs(recipe.student),
        "stages": [dump_recipe(stage) for stage in stages],
        "training": plan_inputs(recipe),
        "seed": recipe.seed,
        **job.data_inputs(),
        "stage_rows": [job.data_inputs(stage.data) for stage in stages if stage.data is not None],
    }
    if name == "train" and recipe.teacher is not None:  # how it teaches; what it is, `prepare` knows
        inputs["teaching"] = [how_it_teaches(each) for each in (recipe.teacher, *recipe.teacher.also)]
    parents = {} if prepared is None else {"prepare": prepared}
    making = _Training(job, prepared, stages, name)
    return job.step(name, inputs, parents, making.work, together=True)


def labels_only(stage: Stage) -> Stage:
    """The stage without its teacher: cross-entropy, as smooth as before, and nothing else."""
    hard = next((term for term in stage.terms if isinstance(term, CrossEntropy)), CrossEntropy())
    alone = [CrossEntropy(label_smoothing=hard.label_smoothing)]
    return stage.model_copy(update={"terms": alone, "balance": None, "gate": None})


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
        read = load_teachers(job, self.prepared)
        made = make_student(job, read, self.name)
        student, codec = made.model, made.codec
        self._check_answers(student, codec)
        stages = [job.stage_job(stage, codec, student) for stage in self.stages]
        shared = share_vocabulary(job, made, read, stages)
        plan = Job(
            title={"train": "student"}.get(self.name, self.name),
            student=student,
            codec=codec,
            stages=stages,
            training=recipe.training,
            seed=recipe.seed,
            unit=job.task.unit,
            teacher=make_teacher(job, read, student, self.stages, made.head_rows),
            shared=shared.ids,
            translate=made.translate,
            logs=job.output / "logs",
        )
        best = train(plan, folder)
        made.finish()
        if is_main_process():
            save_model(student, codec, folder / "student")
            made.save_beside(folder)
        lost = {s.stage.name: {"train": dict(s.train.counts), "validation": dict(s.validation.counts)} for s in stages}
        return {
            "model": self._origin(),
            "parameters": parameters(student),
            "counts": {**training_counts(job.splits), "lost": lost},
            "best": best,
            "notes": [*([shared.note] if shared.note else []), *made.notes],
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

    def _origin(self) -> dict[str, Any]:
        spec = self.job.recipe.student
        if spec.model != "from-teacher":
            return asdict(origin(spec))
        told = {} if self.prepared is None else dict(self.prepared.manifest["model"])
        made = {**spec.cuts, **({} if spec.compact is None else {"compact": spec.compact})}
        cuts = ", ".join(f"{name} {value}" for name, value in made.items())
        return {**told, "name": f"{cuts} of {told.get('name')}"}
