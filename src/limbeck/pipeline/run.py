"""The whole chain, from prepare to report.

prepare -> generate -> cache -> train -> baseline -> compress -> evaluate -> cascade -> optimize -> export -> report
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limbeck.core.artifacts import Artifact, locked, write_json
from limbeck.core.errors import RecipeError, nearest
from limbeck.core.progress import is_main_process, say
from limbeck.core.recipe import Recipe, Teacher, dump_recipe, load_recipe
from limbeck.evaluation.budget import refuse_beyond
from limbeck.pipeline._ahead import check_recipe
from limbeck.pipeline._job import RunJob
from limbeck.pipeline.cache import cache, refuse_uncachable
from limbeck.pipeline.cascade import cascade
from limbeck.pipeline.compress import compress
from limbeck.pipeline.evaluate import evaluate
from limbeck.pipeline.export import export
from limbeck.pipeline.generate import generate, with_generated
from limbeck.pipeline.optimize import optimize
from limbeck.pipeline.prepare import prepare
from limbeck.pipeline.report import report
from limbeck.pipeline.train import train_student

STEPS = ("prepare", "generate", "cache", "train", "compress", "evaluate", "cascade", "optimize", "export", "report")


@dataclass(frozen=True)
class Result:
    """What a run left behind.

    Attributes:
        output: the run's folder.
        student: the student, a Hugging Face folder.
        report: the page; None if the run ended before it.
        scores: figures as in `evaluate/scores.json`; empty if the run ended before them.
    """

    output: Path
    student: Path
    report: Path | None
    scores: list[dict[str, Any]]

    def score(self, model: str, name: str) -> float:
        """One figure, for instance `score("student", "accuracy")`."""
        return find_score(self.scores, model, name)


def find_score(scores: Iterable[Mapping[str, Any]], model: str, name: str) -> float:
    """The value of a model's score.

    Raises:
        KeyError: there is none.
    """
    found = [row["value"] for row in scores if (row["model"], row["name"]) == (model, name)]
    if not found:
        raise KeyError(f"{model} has no score '{name}'")
    return float(found[0])


def run_recipe(
    recipe: Recipe,
    *,
    until: str = "report",
    force: bool = False,
    taught: tuple[Path, ...] = (),
    ledger: Path | None = None,
) -> Result:
    """Bring a recipe's run up to date, as far as a step.

    Every step is skipped when nothing it depends on has changed, and goes on where it was killed. `recipe.json`
    says what the finished steps were made from: a recipe that fails does not take an older one's place.

    Args:
        recipe: what to do.
        until: the last step: prepare, generate, cache, train, compress, evaluate, cascade, optimize, export or report.
        force: do all steps again.
        taught: the outputs of the recipes that this one's student is to teach.
        ledger: where answers that were paid for are kept; left out: `ledger.sqlite` in the run's folder.

    Raises:
        BudgetError: the student is beyond the recipe's budget. Everything is made all the same, the report too.
        LimbeckError: see `limbeck.core.errors`.
    """
    if until not in STEPS:
        guess = nearest(str(until), STEPS)
        raise RecipeError(
            f"there is no step named '{until}'",
            allowed=", ".join(STEPS),
            fix=f"did you mean '{guess}'?" if guess else "until='report'",
        )
    check_recipe(recipe)
    refuse_uncachable(recipe)
    job, output = RunJob(_with_taught(recipe, force, taught), force, ledger), recipe.output
    with locked(output) if is_main_process() else nullcontext():
        if is_main_process() and not (output / "recipe.json").exists():
            write_json(output / "recipe.json", dump_recipe(recipe))
        made = _steps(job, until)
        if is_main_process():
            write_json(output / "recipe.json", dump_recipe(recipe))
    reported, evaluated = made.get("report"), made.get("evaluate")
    scores = json.loads(evaluated.file("scores.json").read_text()) if evaluated else []
    if evaluated:
        refuse_beyond(recipe.budget, scores)
    return Result(
        output=output,
        student=output / "train" / "student",
        report=reported.path / "index.html" if reported else None,
        scores=scores,
    )


def _with_taught(recipe: Recipe, force: bool, taught: tuple[Path, ...]) -> Recipe:
    """The recipe with the student of another recipe in the place of each teacher that is given by one.

    Raises:
        RecipeError: a recipe teaches itself, by itself or by way of others.
    """
    if recipe.teacher is None:
        return recipe
    waiting = (*taught, recipe.output.resolve())

    def ready(teacher: Teacher) -> Teacher:
        if teacher.recipe is None:
            return teacher
        other = load_recipe(teacher.recipe)
        if other.output.resolve() in waiting:
            raise RecipeError("a recipe cannot be its own teacher", got=teacher.recipe, fix="another output")
        say(f"[bold]the teacher's own recipe[/bold]: {teacher.recipe}")
        student = run_recipe(other, until="train", force=force, taught=waiting).student
        return teacher.model_copy(update={"recipe": None, "model": str(student)})

    teacher = ready(recipe.teacher)
    teacher = teacher.model_copy(update={"also": [ready(each) for each in teacher.also]})
    return recipe.model_copy(update={"teacher": teacher})


def _steps(job: RunJob, until: str) -> dict[str, Artifact]:
    made: dict[str, Artifact] = {}
    prepared = prepare(job)
    if prepared is not None:
        made["prepare"] = prepared
    if until == "prepare":
        return made
    generated = generate(job, prepared)
    if generated is not None:
        made["generate"] = generated
    if until == "generate":
        return made
    given, job = job, with_generated(job, generated)
    if (recorded := cache(job, prepared)) is not None:
        made["cache"] = recorded
    if until == "cache":
        return made
    made["train"] = train_student(job, prepared, recorded=recorded)
    if job.recipe.baseline:
        made["baseline"] = train_student(given, prepared, "baseline")
    if until == "train" or not is_main_process():
        return made
    if (compressed := compress(job, made)) is not None:
        made["compress"] = compressed
    if until == "compress":
        return made
    made["evaluate"] = evaluate(job, made)
    if until == "evaluate":
        return made
    if (fitted := cascade(job, made)) is not None:
        made["cascade"] = fitted
    if until == "cascade":
        return made
    if (optimised := optimize(job, made)) is not None:
        made["optimize"] = optimised
    if until == "optimize":
        return made
    made |= export(job, made)
    if until == "report":
        made["report"] = report(job, made)
    return made
