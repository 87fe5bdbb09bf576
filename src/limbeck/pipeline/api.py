"""The Python face of limbeck: `limbeck.run` and `limbeck.distill`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from limbeck.core.errors import RecipeError
from limbeck.core.recipe import Recipe, load_recipe
from limbeck.pipeline.run import Result, run_recipe

_TASKS = {
    "ForCausalLM": "causal-lm",
    "LMHeadModel": "causal-lm",
    "ForSequenceClassification": "text-classification",
    "ForImageClassification": "image-classification",
}


def run(
    recipe: Recipe | Mapping[str, Any] | str | Path,
    overrides: Iterable[str] = (),
    *,
    until: str = "report",
    force: bool = False,
) -> Result:
    """Run a recipe to its report.

    Args:
        recipe: a file, a mapping with the same content, or a loaded recipe.
        overrides: settings of the form `key.path=value`.
        until: stop after this step: prepare, train, evaluate or report.
        force: do steps again that are up to date.

    Returns:
        Where the student and the report are, and the scores.

    Raises:
        LimbeckError: with what is wrong, what is allowed and how to fix it.
    """
    return run_recipe(load_recipe(recipe, overrides), until=until, force=force)


def distill(
    *,
    teacher: str | Path | Mapping[str, Any],
    student: str | Path | Mapping[str, Any],
    data: str | Path | Mapping[str, Any],
    output: str | Path,
    task: str | Mapping[str, Any] | None = None,
    epochs: float = 3,
    temperature: float = 2.0,
    baseline: bool = False,
    **training: Any,
) -> Result:
    """Distil a teacher into a student in one call: cross-entropy and T^2 KL in equal parts, then the evaluation.

    For anything else (stages, schedules, other terms) write a recipe; the one that this call used is
    `<output>/recipe.json`.

    Args:
        teacher: a hub name, a folder, or a recipe's `teacher:` section.
        student: a hub name, a folder, or a recipe's `student:` section.
        data: a file, a folder, a hub dataset, a built-in name, or a recipe's `data:` section.
        output: folder of the run.
        task: causal-lm, text-classification or image-classification; found from the teacher if left out.
        epochs: passes over the training rows.
        temperature: of the KL term.
        baseline: also train the student without the teacher, to compare.
        training: fields of a recipe's `training:` section, for instance `learning_rate=2e-5`.

    Raises:
        LimbeckError: with what is wrong, what is allowed and how to fix it.
    """
    section = {name: _section(value, "model") for name, value in (("teacher", teacher), ("student", student))}
    terms = [
        {"type": "cross_entropy", "weight": 0.5},
        {"type": "kl", "weight": 0.5, "temperature": temperature},
    ]
    return run(
        {
            "task": task or _task_of(section["teacher"]),
            "output": str(output),
            **section,
            "data": _section(data, "train"),
            "training": training,
            "stages": [{"name": "distil", "epochs": epochs, "terms": terms}],
            "baseline": baseline,
        }
    )


def _section(value: Any, key: str) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {key: str(value)}


def _task_of(teacher: Mapping[str, Any]) -> str:
    """The task of a teacher that is already trained for one."""
    from limbeck.core.recipe import Teacher
    from limbeck.models.load import load_config

    architectures = load_config(Teacher.model_validate(teacher)).architectures or []
    for ending, task in _TASKS.items():
        if any(name.endswith(ending) for name in architectures):
            return task
    raise RecipeError(
        "the task cannot be told from the teacher",
        got=", ".join(architectures) or "a config without architectures",
        allowed=", ".join(sorted(set(_TASKS.values()))),
        fix="distill(..., task='text-classification')",
    )
