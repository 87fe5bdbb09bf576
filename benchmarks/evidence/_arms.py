"""What the evidence scripts share: the same student under several recipes and seeds, and a table that compares them.

Students of one seed have the same weights to begin with and the same order of samples, so differences are paired by
seed. The interval of a difference is Student's t over the seeds; the test rows are the same for all.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from scipy import stats

import limbeck
from limbeck.core.recipe import Model, Recipe, load_recipe
from limbeck.evaluation.predict import classify
from limbeck.models.load import parameters
from limbeck.pipeline._job import RunJob

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("LIMBECK_DATA", ROOT.parent / "shared" / "data"))
"""Where the data sets are; the project carries none."""


@dataclass(frozen=True)
class Arm:
    """One way to train the student.

    Attributes:
        name: what the table calls it.
        terms: of its one stage.
        changes: what else differs from the base recipe: sections by name, and `stage` for the stage's own fields.
    """

    name: str
    terms: Sequence[Mapping[str, Any]]
    changes: Mapping[str, Any]


def recipe_of(base: Mapping[str, Any], arm: Arm, seed: int, output: Path) -> dict[str, Any]:
    """The recipe of an arm under a seed."""
    changes = {key: value for key, value in arm.changes.items() if key != "stage"}
    stage = {**base["stages"][0], **arm.changes.get("stage", {}), "terms": list(arm.terms)}
    made = {**base, **changes, "stages": [stage], "seed": seed, "output": str(output / f"{_slug(arm.name)}-{seed}")}
    return {key: value for key, value in made.items() if value is not None}


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name.lower())


def run_arms(
    base: Mapping[str, Any], arms: Sequence[Arm], seeds: Sequence[int], output: Path
) -> dict[str, list[dict[str, float]]]:
    """Train and score every arm under every seed; what is up to date is not done again.

    Returns:
        By arm, for each seed the student's scores by name, and `parameters`.
    """
    found: dict[str, list[dict[str, float]]] = {arm.name: [] for arm in arms}
    for seed in seeds:
        for arm in arms:
            recipe = load_recipe(recipe_of(base, arm, seed, output))
            result = limbeck.run(recipe, until="train")
            scores = score(recipe, result.student)
            steps = [json.loads(line) for line in (result.student.parent / "steps.jsonl").read_text().splitlines()]
            shares = [step["teacher_share"] for step in steps if "teacher_share" in step]
            asked = {"teacher_share": float(np.mean(shares))} if shares else {}
            found[arm.name].append({**scores, **asked, "seed": seed})
            print(f"seed {seed}  {arm.name:42} accuracy {scores['accuracy']:.4f}", flush=True)
    return found


def score(recipe: Recipe, student: Path) -> dict[str, float]:
    """Accuracy on the test rows, and the parameters; the student alone, since the teacher is the same in all arms."""
    job = RunJob(recipe)
    model, codec = job.stored(student, Model(model="student"))
    rows = job.encode(job.splits.test, codec).features
    answers = classify(model, codec, rows, 64, "test rows")
    return {"accuracy": float(np.mean(answers["correct"])), "parameters": float(parameters(model))}


def difference(one: Sequence[float], other: Sequence[float]) -> tuple[float, float, float]:
    """Mean of the paired differences, and its 95 % interval (Student's t)."""
    gaps = np.asarray(one) - np.asarray(other)
    half = stats.t.ppf(0.975, len(gaps) - 1) * gaps.std(ddof=1) / np.sqrt(len(gaps)) if len(gaps) > 1 else np.inf
    return float(gaps.mean()), float(gaps.mean() - half), float(gaps.mean() + half)


def table(found: Mapping[str, Sequence[Mapping[str, float]]], teacher: float, against: Sequence[str]) -> str:
    """Markdown: accuracy of every arm over the seeds, its loss to the teacher, and differences in points."""
    head = ["arm", "accuracy (min to max)", "points below the teacher", *(f"against {name}" for name in against)]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, rows in found.items():
        values = [row["accuracy"] for row in rows]
        cells = [name, f"{np.mean(values):.2%} ({min(values):.2%} to {max(values):.2%})"]
        cells.append(f"{100 * (teacher - np.mean(values)):.2f}")
        for other in against:
            if other == name:
                cells.append("")
                continue
            mean, low, high = difference(values, [row["accuracy"] for row in found[other]])
            cells.append(f"{100 * mean:+.2f} [{100 * low:+.2f}, {100 * high:+.2f}]")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write(name: str, facts: Mapping[str, Any], folder: Path = ROOT / "benchmarks" / "results") -> Path:
    """The dated result of a script, with machine and versions."""
    path = folder / f"{date.today().isoformat()}-{name}.json"
    machine = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} thread(s) used",
        "versions": {
            "limbeck": limbeck.__version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "python": platform.python_version(),
        },
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"date": date.today().isoformat(), **machine, **facts}, indent=1) + "\n")
    return path
