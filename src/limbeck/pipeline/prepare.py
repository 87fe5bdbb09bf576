"""prepare: a teacher that can teach. It is fine-tuned on the task if the recipe asks, else only recorded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from limbeck.core.artifacts import Artifact
from limbeck.core.progress import is_main_process
from limbeck.core.recipe import dump_recipe
from limbeck.models.load import origin, parameters
from limbeck.pipeline._ahead import check_ahead
from limbeck.pipeline._job import RunJob, model_inputs
from limbeck.pipeline.train import plan_inputs, save_model, training_counts
from limbeck.training.loop import Job, train


def prepare(job: RunJob) -> Artifact | None:
    """The artifact `prepare`; None where the recipe has no teacher.

    It holds `teacher/`, a Hugging Face folder, if the teacher was trained here; in any case the manifest says
    where the teacher came from and under which licence.
    """
    check_ahead(job)
    teacher = job.recipe.teacher
    if teacher is None:
        return None
    inputs: dict[str, Any] = {"teacher": model_inputs(teacher)}
    if teacher.finetune is not None:
        own = teacher.finetune.data
        inputs |= {**job.data_inputs(own), "training": plan_inputs(job.recipe), "seed": job.recipe.seed}
        if own is not None:  # its rows are its own, but its classes are the recipe's
            inputs["classes"] = job.label_names
    return job.step("prepare", inputs, {}, lambda folder: _work(job, folder), together=True)


def _work(job: RunJob, folder: Path) -> Mapping[str, Any]:
    recipe, teacher = job.recipe, job.recipe.teacher
    assert teacher is not None
    told: dict[str, Any] = {"model": asdict(origin(teacher)), "notes": []}
    if teacher.finetune is None:
        return told
    codec = job.task.codec(job.processor(teacher), job.label_names)
    model = job.new_model(teacher, codec, trained=True, new_head=True)
    stage = job.stage_job(teacher.finetune, codec, model)
    plan = Job("teacher", model, codec, [stage], recipe.training, recipe.seed, job.task.unit, logs=job.output / "logs")
    best = train(plan, folder)
    if is_main_process():
        save_model(model, codec, folder / "teacher")
    rows = job.splits if teacher.finetune.data is None else job.stage_splits(teacher.finetune.data)
    lost = {"train": dict(stage.train.counts), "validation": dict(stage.validation.counts)}
    return {
        **told,
        "counts": {**training_counts(rows), "lost": {teacher.finetune.name: lost}},
        "best": best,
        "parameters": parameters(model),
        "finetune": dump_recipe(teacher.finetune),
    }
