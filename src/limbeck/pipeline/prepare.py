"""prepare: a teacher that can teach. It is fine-tuned on the task if the recipe asks, else only recorded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from limbeck.core.artifacts import Artifact
from limbeck.core.progress import is_main_process
from limbeck.core.recipe import Teacher, dump_recipe
from limbeck.models.load import origin, parameters
from limbeck.pipeline._ahead import check_ahead
from limbeck.pipeline._job import RunJob
from limbeck.pipeline._teaching import all_teachers, folder_of, what_it_is
from limbeck.pipeline.train import plan_inputs, save_model, training_counts
from limbeck.training.job import Job
from limbeck.training.loop import train


def prepare(job: RunJob) -> Artifact | None:
    """The artifact `prepare`; None where the recipe has no teacher, or the student is its own.

    It holds `teacher/`, a Hugging Face folder, if the teacher was trained here (`teacher-2/` and so on are further
    teachers); in any case the manifest says where the teacher came from and under which licence.
    """
    check_ahead(job)
    teachers = all_teachers(job.recipe.teacher)
    if not teachers:
        return None
    inputs: dict[str, Any] = {"teacher": what_it_is(teachers[0])}
    if len(teachers) > 1:
        inputs["also"] = [what_it_is(each) for each in teachers[1:]]
    trained = [each.finetune for each in teachers if each.finetune is not None]
    if trained:
        inputs |= {**job.data_inputs(trained[0].data), "training": plan_inputs(job.recipe), "seed": job.recipe.seed}
        if others := [each.data for each in trained[1:] if each.data != trained[0].data]:
            inputs["further_rows"] = [job.data_inputs(data) for data in others]
        if any(each.data is not None for each in trained):  # rows are a teacher's own, but its classes the recipe's
            inputs["classes"] = job.label_names
    return job.step("prepare", inputs, {}, lambda folder: _work(job, folder), together=True)


def _work(job: RunJob, folder: Path) -> Mapping[str, Any]:
    told = [_one(job, each, folder, i) for i, each in enumerate(all_teachers(job.recipe.teacher))]
    return told[0] if len(told) == 1 else {**told[0], "also": told[1:]}


def _one(job: RunJob, teacher: Teacher, folder: Path, place: int) -> dict[str, Any]:
    """One teacher: what the manifest says of it."""
    recipe, name = job.recipe, folder_of(place)
    told: dict[str, Any] = {"model": asdict(origin(teacher)), "notes": []}
    if teacher.finetune is None:
        return told
    first = all_teachers(recipe.teacher)[0]
    # A further teacher from a config, with no tokenizer of its own, reads as the first one does.
    processor = job.processor(teacher, None if place == 0 else job.processor(first))
    codec = job.task.codec(processor, job.label_names)
    model = job.new_model(teacher, codec, trained=True, new_head=True)
    codec = codec.prepare(model)
    stage = job.stage_job(teacher.finetune, codec, model)
    logs = job.output / "logs"
    # The first teacher's log lies where it always did.
    own = folder if place == 0 else folder / f"{name}-log"
    own.mkdir(exist_ok=True)
    plan = Job(name, model, codec, [stage], recipe.training, recipe.seed + place, job.task.unit, logs=logs)
    best = train(plan, own)
    if is_main_process():
        save_model(model, codec, folder / name, job.task)
    rows = job.splits if teacher.finetune.data is None else job.stage_splits(teacher.finetune.data)
    lost = {"train": dict(stage.train.counts), "validation": dict(stage.validation.counts)}
    return {
        **told,
        "counts": {**training_counts(rows), "lost": {teacher.finetune.name: lost}},
        "best": best,
        "parameters": parameters(model),
        "finetune": dump_recipe(teacher.finetune),
    }
