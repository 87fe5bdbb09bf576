"""What can be known to fail before the first step has cost anything."""

from __future__ import annotations

from limbeck.core.errors import ModelError
from limbeck.models.load import load_config
from limbeck.pipeline._job import RunJob
from limbeck.pipeline._teaching import all_teachers
from limbeck.training.engine import micro_batch, processes


def check_ahead(job: RunJob) -> None:
    """Batch sizes of every stage, the student's config, and the layers that it takes from its teacher.

    Raises:
        LimbeckError: the run would fail later, after the teacher's training.
    """
    recipe = job.recipe
    teachers = all_teachers(recipe.teacher)
    for stage in [*recipe.stages, *(each.finetune for each in teachers if each.finetune is not None)]:
        micro_batch(stage, processes().num_processes, f"stage {stage.name}")
    if recipe.student.model != "from-teacher":
        load_config(recipe.student)
        return
    assert recipe.teacher is not None
    depth = getattr(load_config(recipe.teacher), "num_hidden_layers", 0)
    wrong = [layer for layer in recipe.student.layers or [] if layer >= depth]
    if wrong and depth:
        raise ModelError("student.layers names layers that the teacher has not", got=wrong, allowed=f"0 to {depth - 1}")
