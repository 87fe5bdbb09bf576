"""report: one page, a summary, a model card and JSON, from what the other steps recorded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from limbeck.core.artifacts import Artifact
from limbeck.core.recipe import dump_recipe
from limbeck.pipeline._job import RunJob
from limbeck.report.facts import Facts, section
from limbeck.report.render import write_report


def report(job: RunJob, made: Mapping[str, Artifact]) -> Artifact:
    """The artifact `report`: `index.html`, `report.md`, `report.json` and the model card `README.md`.

    Args:
        job: the run.
        made: all artifacts of the run, `train` and `evaluate` among them.
    """
    inputs = {"recipe": dump_recipe(job.recipe)}
    return job.step("report", inputs, made, lambda folder: _work(dump_recipe(job.recipe), made, folder))


def _work(recipe: Mapping[str, Any], made: Mapping[str, Artifact], folder: Path) -> Mapping[str, Any]:
    write_report(facts_of(recipe, made), folder)
    return {}


def facts_of(recipe: Mapping[str, Any], made: Mapping[str, Artifact]) -> Facts:
    """What the steps of a run recorded, as the report reads it.

    Args:
        recipe: the resolved recipe.
        made: all artifacts of the run, `train` and `evaluate` among them.
    """
    student = made["train"].manifest["model"]["name"]
    teacher = made["prepare"].manifest["model"]["name"] if "prepare" in made else None
    title = section(recipe, "report").get("title")
    evaluated = made["evaluate"]
    return Facts(
        title=title or (f"{student}, taught by {teacher}" if teacher else str(student)),
        recipe=recipe,
        scores=json.loads(evaluated.file("scores.json").read_text(encoding="utf-8")),
        steps=_lines(made["train"], "steps.jsonl"),
        evals=_lines(made["train"], "evals.jsonl"),
        baseline_steps=_lines(made.get("baseline"), "steps.jsonl"),
        baseline_evals=_lines(made.get("baseline"), "evals.jsonl"),
        manifests={name: dict(artifact.manifest) for name, artifact in made.items()},
        details={
            Path(name).stem: json.loads(evaluated.file(name).read_text(encoding="utf-8"))
            for name in evaluated.manifest["files"]
            if Path(name).parent == Path("details") and Path(name).suffix == ".json"
        }
        | ({"cascade": _json(made["cascade"], "curve.json")} if "cascade" in made else {}),
        gate=json.loads(made["compress"].file("gate.json").read_text(encoding="utf-8")) if "compress" in made else {},
    )


def _json(artifact: Artifact, name: str) -> Any:
    return json.loads(artifact.file(name).read_text(encoding="utf-8"))


def _lines(artifact: Artifact | None, name: str) -> list[dict[str, Any]]:
    return (
        []
        if artifact is None
        else [json.loads(line) for line in artifact.file(name).read_text(encoding="utf-8").splitlines()]
    )
