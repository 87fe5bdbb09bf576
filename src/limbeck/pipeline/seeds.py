"""One recipe under several seeds: is the student better than its baseline, or was it lucky?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from limbeck.core.artifacts import write_json
from limbeck.core.errors import RecipeError
from limbeck.core.progress import is_main_process
from limbeck.core.recipe import Recipe
from limbeck.pipeline.run import run_recipe
from limbeck.tasks.causal_lm import CausalLM


@dataclass(frozen=True)
class SeedReport:
    """Scores by seed, and the mean difference between student and baseline.

    Attributes:
        path: `seeds.json` with all of this.
        metric: accuracy or answer_accuracy.
        rows: by seed: teacher, student and baseline.
        difference: mean of student minus baseline; None without a baseline.
        low: lower end of its interval.
        high: upper end.
    """

    path: Path
    metric: str
    rows: list[dict[str, Any]]
    difference: float | None
    low: float | None
    high: float | None


def run_seeds(recipe: Recipe, seeds: int, *, force: bool = False) -> SeedReport | None:
    """Run a recipe under seeds 0, 1, ...; each in a folder of its own below the recipe's output.

    The interval is Student's t over the paired differences, one per seed: teacher, student and baseline are
    all trained anew, so it covers the luck of weights and order, on the given test rows.

    Returns:
        The scores and their difference; None in all processes but the first, which have no scores.

    Raises:
        RecipeError: fewer than two seeds, or answers that are not graded.
    """
    if seeds < 2:
        raise RecipeError("several seeds are needed to compare", got=seeds, allowed="2 or more")
    if isinstance(recipe.task, CausalLM) and recipe.task.answer_pattern is None:
        raise _ungraded()
    rows, metric = [], ""
    for seed in range(seeds):
        one = recipe.model_copy(update={"seed": seed, "output": recipe.output / f"seed-{seed}"})
        # What was paid for under one seed is not paid for again under the next.
        shared: dict[str, Any] = {"ledger": recipe.output / "ledger.sqlite"} if one.generate else {}
        result = run_recipe(one, force=force, **shared)
        if not is_main_process():
            continue
        graded = [s for s in result.scores if s["name"] in ("accuracy", "answer_accuracy")]
        if not graded:
            raise _ungraded()
        metric = graded[0]["name"]
        rows.append({"seed": seed, **{s["model"]: s["value"] for s in graded}})
    if not is_main_process():
        return None
    difference = low = high = None
    if all("baseline" in row for row in rows):
        gaps = np.asarray([row["student"] - row["baseline"] for row in rows])
        difference = float(gaps.mean())
        half = float(stats.t.ppf((1 + recipe.evaluate.confidence) / 2, seeds - 1) * gaps.std(ddof=1) / np.sqrt(seeds))
        low, high = difference - half, difference + half
    path = recipe.output / "seeds.json"
    found = {"metric": metric, "rows": rows, "student_minus_baseline": difference, "low": low, "high": high}
    write_json(path, {**found, "confidence": recipe.evaluate.confidence})
    return SeedReport(path, metric, rows, difference, low, high)


def _ungraded() -> RecipeError:
    return RecipeError("this recipe grades no answers to compare", fix="task.answer_pattern=...")
