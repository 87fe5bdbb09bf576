"""report: one page and one summary from what the other steps recorded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from limbeck.core.artifacts import Artifact
from limbeck.core.recipe import dump_recipe
from limbeck.pipeline._job import RunJob
from limbeck.report.facts import Facts
from limbeck.report.render import write_report


def report(job: RunJob, made: Mapping[str, Artifact]) -> Artifact:
    """The artifact `report`: `index.html` and `report.md`.

    Args:
        job: the run.
        made: all artifacts of the run, `train` and `evaluate` among them.
    """
    inputs = {"recipe": dump_recipe(job.recipe)}
    return job.step("report", inputs, made, lambda folder: _work(job, made, folder))


def _work(job: RunJob, made: Mapping[str, Artifact], folder: Path) -> Mapping[str, Any]:
    recipe = job.recipe
    student = made["train"].manifest["model"]["name"]
    teacher = made["prepare"].manifest["model"]["name"] if "prepare" in made else None
    facts = Facts(
        title=recipe.report.title or (f"{student}, taught by {teacher}" if teacher else str(student)),
        recipe=dump_recipe(recipe),
        scores=json.loads(made["evaluate"].file("scores.json").read_text()),
        steps=_lines(made["train"], "steps.jsonl"),
        evals=_lines(made["train"], "evals.jsonl"),
        baseline_steps=_lines(made.get("baseline"), "steps.jsonl"),
        baseline_evals=_lines(made.get("baseline"), "evals.jsonl"),
        manifests={name: dict(artifact.manifest) for name, artifact in made.items()},
    )
    write_report(facts, folder)
    return {}


def _lines(artifact: Artifact | None, name: str) -> list[dict[str, Any]]:
    return [] if artifact is None else [json.loads(line) for line in artifact.file(name).read_text().splitlines()]
