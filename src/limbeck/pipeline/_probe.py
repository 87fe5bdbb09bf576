"""A few steps of a recipe in a folder of their own, to see how long they take."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from statistics import mean
from typing import TypeVar

from limbeck.core.recipe import Recipe, Stage, Teacher
from limbeck.doctor.plan import Probe
from limbeck.pipeline._job import device
from limbeck.pipeline._teaching import folder_of
from limbeck.pipeline.run import run_recipe

STEPS = 20
WARM = 4
"""The first steps, which are not counted."""
S = TypeVar("S", bound=Stage)


def probe(recipe: Recipe) -> Probe:
    """Make a few steps of every stage with the recipe's own models and rows, and throw away what came of it.

    Nothing is generated, so that an endpoint is not paid, and no recording is made: the teacher is asked in each step.

    Raises:
        LimbeckError: the run would fail with the same error.
    """
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "probe"
        changes = {"output": output, "generate": [], "cache": None, "baseline": False, "tune": None}
        teachers = [] if recipe.teacher is None else [recipe.teacher, *recipe.teacher.also]
        few = recipe.model_copy(
            update={
                **changes,
                "teacher": _teacher(recipe.teacher),
                "stages": [_few(stage, bool(recipe.generate)) for stage in recipe.stages],
            }
        )
        run_recipe(few, until="train")
        seconds = _means(output / "train" / "steps.jsonl")
        for i, each in enumerate(teachers):
            if each.finetune is not None:
                log = output / "prepare" / ("steps.jsonl" if i == 0 else f"{folder_of(i)}-log/steps.jsonl")
                own = "" if i == 0 else f"{folder_of(i)} "
                seconds |= {own + stage: each for stage, each in _means(log).items()}
    return Probe(seconds, STEPS, str(device()))


def _teacher(spec: Teacher | None) -> Teacher | None:
    if spec is None:
        return None
    finetune = None if spec.finetune is None else _few(spec.finetune, False)
    return spec.model_copy(update={"finetune": finetune, "also": [_teacher(each) for each in spec.also]})


def _few(stage: S, generated: bool) -> S:
    """A stage cut short; what goes by columns of generated rows is left out, as there are none."""
    order = {"mixture": None, "curriculum": None} if generated and stage.data is None else {}
    return stage.model_copy(update={"max_steps": STEPS, "eval_steps": STEPS, "early_stopping_patience": None, **order})


def _means(log: Path) -> dict[str, float]:
    """By stage, the mean time of a step but for the first ones, which warm up.

    No median: where the student writes its own texts, few steps take most of the time.
    """
    seconds: dict[str, list[float]] = {}
    for line in log.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        seconds.setdefault(row["stage"], []).append(row["seconds"])
    return {stage: mean(each[WARM:] or each) for stage, each in seconds.items()}
