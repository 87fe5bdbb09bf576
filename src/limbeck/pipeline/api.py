"""The Python face of limbeck: `limbeck.run`, `distill`, `evaluate`, `optimize` and `export`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from limbeck.core.errors import RecipeError
from limbeck.core.parts import build, config_of
from limbeck.core.recipe import Endpoint, Recipe, Teacher, load_recipe
from limbeck.core.recipe.load import lines_of
from limbeck.exporters import Exporter
from limbeck.optimization import Optimization
from limbeck.pipeline.export import export_at
from limbeck.pipeline.measure import Asking, Measured, endpoint_at, measure_models, measure_predictions
from limbeck.pipeline.optimize import optimize_at
from limbeck.pipeline.run import Result, run_recipe
from limbeck.runtime.guess import TASKS, task_of

PRETRAINED_LEARNING_RATE = 5e-5
"""What `distill` trains a student with that does not begin from random weights, unless it is told otherwise."""


def run(
    recipe: Recipe | Mapping[str, Any] | str | Path,
    overrides: Iterable[str] = (),
    *,
    until: str = "report",
    force: bool = False,
    ledger: str | Path | None = None,
) -> Result:
    """Run a recipe to its report.

    Args:
        recipe: a file, a mapping with the same content, or a loaded recipe.
        overrides: settings of the form `key.path=value`.
        until: stop after this step: prepare, train, evaluate, optimize, export or report.
        force: do steps again that are up to date.
        ledger: where answers that were paid for are kept; left out: `ledger.sqlite` in the run's folder. Runs that
            name one file share its answers.

    Returns:
        Where the student and the report are, and the scores.

    Raises:
        LimbeckError: with what is wrong, what is allowed and how to fix it.
    """
    kept = None if ledger is None else Path(ledger)
    return run_recipe(load_recipe(recipe, overrides), until=until, force=force, ledger=kept)


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
    seed: int = 0,
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
        seed: weights, order and dropout of the training.
        training: fields of a recipe's `training:` section, for instance `learning_rate=2e-5`. Left out, the learning
            rate is 5e-5 for a student from the hub, a folder or the teacher, and the recipe's default (1e-3) for
            a new one.

    Raises:
        LimbeckError: with what is wrong, what is allowed and how to fix it.
    """
    section = {name: _section(value, "model") for name, value in (("teacher", teacher), ("student", student))}
    terms = [
        {"type": "cross_entropy", "weight": 0.5},
        {"type": "kl", "weight": 0.5, "temperature": temperature},
    ]
    stage: dict[str, Any] = {"name": "distil", "epochs": epochs, "terms": terms}
    if "model" in section["student"] and "learning_rate" not in training:
        # The stage's alone: a new teacher's fine-tuning keeps the recipe's default.
        stage["learning_rate"] = PRETRAINED_LEARNING_RATE
    recipe = load_recipe(
        {
            "task": task or "causal-lm",  # stands in until the teacher, once checked, has told its own
            "output": str(output),
            "seed": seed,
            **section,
            "data": _section(data, "train"),
            "training": training,
            "stages": [stage],
            "baseline": baseline,
        }
    )
    if task is None:
        assert recipe.teacher is not None
        recipe = recipe.model_copy(update={"task": build("task", _task_of(recipe.teacher))})
    return run(recipe)


def evaluate(
    recipe: Recipe | Mapping[str, Any] | str | Path | None = None,
    overrides: Iterable[str] = (),
    *,
    models: Mapping[str, str | Path | Mapping[str, Any]] | None = None,
    predictions: Mapping[str, str | Path] | None = None,
    output: str | Path = "evaluation",
    against: str | None = None,
    api_key: str | None = None,
    template: str = "{prompt}",
    budget: Mapping[str, Any] | None = None,
    columns: Mapping[str, str] | None = None,
    classes: Sequence[str] | None = None,
    force: bool = False,
) -> Measured:
    """Measure any models side by side on a recipe's rows, or score predictions that were recorded elsewhere.

    `limbeck.run(recipe, until="evaluate")` measures the recipe's own student, teacher and baseline.

    Args:
        recipe: task, rows and section `evaluate`; with `predictions` it may be left out, and only `evaluate` is read.
        overrides: settings of the form `key.path=value`.
        models: by name: a folder (of a model, of an artifact, of a run), a hub name, `https://HOST/v1#MODEL`, or a
            recipe's section for an endpoint.
        predictions: by name, JSONL, CSV or Parquet.
        output: folder of the artifact.
        against: the model that the others are compared with; left out: the one named `teacher`, if there is one.
        api_key: name of the environment variable that holds the key of the endpoints.
        template: what endpoints are asked, with `{prompt}` in the prompt's place.
        budget: what each endpoint may cost, `{tokens: ..., cost: ...}`, over all runs together.
        columns: of predictions, by their meaning, the files' own names; `{model}` in one stands for the model's name.
        classes: of predictions, names of the probabilities, in their order.
        force: measure again what is up to date; answers that were paid for are not asked again.

    Raises:
        LimbeckError: with what is wrong, what is allowed and how to fix it.
    """
    if bool(models) == bool(predictions):
        raise RecipeError("give `models` or `predictions`", got="both" if models else "neither")
    loaded = None if recipe is None else load_recipe(recipe, overrides)
    if predictions:
        tables = {name: Path(path).expanduser() for name, path in predictions.items()}
        plan = None if loaded is None else loaded.evaluate
        return measure_predictions(
            tables, Path(output), against=against, columns=columns, classes=classes, plan=plan, force=force
        )
    if loaded is None:
        raise RecipeError("models are measured on a recipe's rows", got="no recipe")
    found = {name: _asked(where, api_key) for name, where in (models or {}).items()}
    asking = Asking(template, budget or {})
    return measure_models(loaded, found, Path(output), against=against, asking=asking, force=force)


def export(
    where: str | Path,
    to: str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]] = (),
    *,
    output: str | Path | None = None,
    task: str | Mapping[str, Any] | None = None,
    rows: str | Path | None = None,
    force: bool = False,
) -> dict[str, Path]:
    """Export a student: written in another format, loaded back, and compared with the student on real rows.

    Args:
        where: a run's folder, or a Hugging Face folder.
        to: formats, by name or as recipes give them: `["onnx", {"type": "onnx", "precision": "fp16", "name": "half"}]`.
            Left out: those of the run's recipe.
        output: the folder that holds the exports; left out: `export` in the run, or here.
        task: of a folder without a card; left out: what its config tells.
        rows: a file with real rows of a folder's task, columns named as in recipes. Left out: made-up ones, which
            say less.
        force: export again what is up to date.

    Returns:
        By name, the folder of each export.

    Raises:
        LimbeckError: with what is wrong, what is allowed and how to fix it.
    """
    formats = [to] if isinstance(to, str | Mapping) else list(to)
    with _explained("that cannot be exported"):
        exporters = [cast(Exporter, build("exporter", each)) for each in formats]
        asked = None if task is None else config_of(build("task", task))
    made = export_at(
        Path(where),
        exporters,
        output=None if output is None else Path(output),
        task=asked,
        rows=None if rows is None else Path(rows),
        force=force,
    )
    return {name: artifact.path for name, artifact in made.items()}


def optimize(
    where: str | Path,
    passes: str | Sequence[str | Mapping[str, Any]] | None = None,
    *,
    output: str | Path | None = None,
    task: str | Mapping[str, Any] | None = None,
    rows: str | Path | None = None,
    force: bool = False,
    **settings: Any,
) -> Path:
    """Make a student cheaper to ask, by passes that are compared and timed one by one; see docs/optimize.md.

    Args:
        where: a run's folder, or a Hugging Face folder.
        passes: by name or as recipes give them, in order: `["fuse_qkv", {"type": "quantized_cache", "keep": True}]`.
            Left out: those of the run's recipe, or the usual ones.
        output: holds the artifact `optimize`; left out: the run, or here.
        task: of a folder without a card; left out: what its config tells.
        rows: a file with real rows of a folder's task, columns named as in recipes. Left out: made-up ones, which
            say less.
        force: do again what is up to date.
        settings: other fields of a recipe's `optimize:` section, for instance `batch_size=8`.

    Returns:
        The artifact's folder: `student` in it is what was kept, `passes.json` what was found.

    Raises:
        LimbeckError: with what is wrong, what is allowed and how to fix it.
    """
    named = [passes] if isinstance(passes, str) else passes
    with _explained("that is no way to optimise"):
        chosen = None if named is None else [cast(Optimization, build("optimization", each)) for each in named]
        asked = None if task is None else config_of(build("task", task))
    place, file = (None if each is None else Path(each) for each in (output, rows))
    return optimize_at(Path(where), chosen, output=place, task=asked, rows=file, force=force, **settings).path


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """What is wrong with parts that were named, as an error that says so.

    Raises:
        RecipeError: something is.
    """
    try:
        yield
    except ValidationError as error:
        raise RecipeError(f"{what}:\n" + "\n".join(lines_of(error.errors()))) from None
    except ValueError as error:
        raise RecipeError(what, got=str(error)) from error


def _asked(where: str | Path | Mapping[str, Any], api_key: str | None) -> str | Endpoint:
    """An endpoint, or the folder or hub name of a model with weights."""
    if isinstance(where, Mapping):
        return endpoint_at(where, api_key)
    return endpoint_at(str(where), api_key) if str(where).startswith(("http://", "https://")) else str(where)


def _section(value: Any, key: str) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {key: str(value)}


def _task_of(teacher: Teacher) -> str:
    """The task of a teacher that is already trained for one."""
    from limbeck.models.load import load_config

    architectures = load_config(teacher).architectures or []
    if (task := task_of(architectures)) is not None:
        return task
    raise RecipeError(
        "the task cannot be told from the teacher",
        got=", ".join(architectures) or "a config without architectures",
        allowed=", ".join(sorted(set(TASKS.values()))),
        fix="distill(..., task='text-classification')",
    )
