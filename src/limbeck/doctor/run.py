"""What checks of a run read: the folder that it left, finished or not. No model, no data set."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from limbeck.core.artifacts import MANIFEST, read_manifest
from limbeck.core.errors import ArtifactError

Row = dict[str, Any]
STEPS = ("prepare", "generate", "cache", "train", "baseline", "evaluate")


@dataclass(frozen=True)
class StageLog:
    """A stage of the student's training.

    Attributes:
        name: the stage's.
        spec: its section of the recipe; empty where the log has a stage that the recipe has not.
        steps: rows of `steps.jsonl`.
        evals: rows of `evals.jsonl`.
    """

    name: str
    spec: Mapping[str, Any]
    steps: list[Row]
    evals: list[Row]

    @property
    def terms(self) -> dict[str, Mapping[str, Any]]:
        """The recipe's terms by their names in the log."""
        return {str(term.get("name") or term["type"]): term for term in self.spec.get("terms", [])}

    def values(self, term: str) -> list[float]:
        """What a term was, at the steps that have it."""
        return [row["terms"][term] for row in self.steps if term in row["terms"]]


@dataclass(frozen=True)
class Run:
    """A run's folder.

    Attributes:
        path: it.
        recipe: the resolved recipe.
        manifests: of the finished steps, by name.
        scores: rows of `scores.json`; empty before the evaluation.
        steps: the student's `steps.jsonl`, of an unfinished training too.
        evals: the student's `evals.jsonl`.
    """

    path: Path
    recipe: Mapping[str, Any]
    manifests: Mapping[str, Mapping[str, Any]]
    scores: list[Row] = field(default_factory=list)
    steps: list[Row] = field(default_factory=list)
    evals: list[Row] = field(default_factory=list)

    @property
    def is_behind(self) -> bool:
        """Whether a later training was begun and did not come to its end; what is read is the one before."""
        return self.is_trained and (self.path / ".train.partial").exists()

    @property
    def is_trained(self) -> bool:
        """Whether the training came to its end."""
        return "train" in self.manifests

    @property
    def stages(self) -> Iterator[StageLog]:
        """The stages that were begun, in order."""
        specs = {stage["name"]: stage for stage in self.recipe.get("stages", [])}
        for name in dict.fromkeys(row["stage"] for row in self.steps):
            own = [[row for row in rows if row["stage"] == name] for rows in (self.steps, self.evals)]
            yield StageLog(name, specs.get(name, {}), *own)

    @property
    def last_stage(self) -> str:
        """Its name: what a student became, it became there."""
        return str(self.recipe["stages"][-1]["name"])

    def find(self, model: str, name: str) -> Row | None:
        """A model's score, None where there is none or it is no finite number."""
        rows = [r for r in self.scores if (r["model"], r["name"]) == (model, name)]
        return next((r for r in rows if r["value"] is not None and math.isfinite(r["value"])), None)

    @cached_property
    def layers(self) -> list[Row]:
        """The layers that terms compared, as `train/layers.json` lists them; none where no term did."""
        path = _folder(self.path, "train") / "layers.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []

    def detail(self, name: str) -> Any:
        """A table of `evaluate/details`; None where there is none."""
        path = self.path / "evaluate" / "details" / f"{name}.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    def predictions(self, model: str) -> dict[str, list[Any]]:
        """Recorded predictions by column, texts and classes alone; empty where there are none."""
        path = self.path / "evaluate" / f"predictions-{model}.parquet"
        if not path.exists():
            return {}
        names = [name for name in ("prediction", "target", "text") if name in pq.read_schema(path).names]
        return {name: pq.read_table(path, columns=[name])[name].to_pylist() for name in names}


def read_run(path: Path) -> Run:
    """A run's folder, however far it came.

    Raises:
        ArtifactError: it is no run, or a manifest is damaged.
    """
    if not (path / "recipe.json").is_file():
        raise ArtifactError(
            f"{path} is no run: there is no recipe.json", fix="the folder that a recipe's `output` names"
        )
    made = {name: read_manifest(path / name) for name in STEPS if (path / name / MANIFEST).exists()}
    scores = path / "evaluate" / "scores.json"
    training = _folder(path, "train")
    return Run(
        path=path,
        recipe=json.loads((path / "recipe.json").read_text(encoding="utf-8")),
        manifests=made,
        scores=json.loads(scores.read_text(encoding="utf-8")) if "evaluate" in made else [],
        steps=_lines(training / "steps.jsonl"),
        evals=_lines(training / "evals.jsonl"),
    )


def _folder(path: Path, step: str) -> Path:
    """Where a step's files are: its own folder, or that of a step that did not come to its end."""
    done = path / step
    return done if (done / MANIFEST).exists() else path / f".{step}.partial"


def _lines(path: Path) -> list[Row]:
    """Whole lines of a log; a line that a kill cut short is not one."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line[-1] == "\n"]
