"""The recipe with other values in it: made from its raw text, so that what stages inherit reaches them, and checked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from limbeck.core.artifacts import Artifact, digest_of
from limbeck.core.errors import LimbeckError, RecipeError
from limbeck.core.recipe import Data, Optimization, Recipe, Tune, load_recipe
from limbeck.core.yaml import apply_overrides
from limbeck.data.dataset import Splits, load_splits
from limbeck.pipeline._ahead import check_ahead
from limbeck.pipeline._job import RunJob, Work
from limbeck.pipeline.prepare import prepare
from limbeck.pipeline.train import train_student
from limbeck.pipeline.tuning.samplers import Values, combinations, points

SEARCHED = ("student", "stages", "training")
"""Sections that may be searched. The others decide who teaches, or which rows a score is of."""


class StudyJob(RunJob):
    """A job that never reads a test row.

    Args:
        recipe: what to do; its test rows, its baseline and its search are left out.
        output: where to, if not where the recipe says.
    """

    def __init__(self, recipe: Recipe, output: Path | None = None):
        changes = {
            "output": output or recipe.output,
            "data": recipe.data.model_copy(update={"test": None}),
            "evaluate": recipe.evaluate.model_copy(update={"split": "validation"}),
            "baseline": False,
            "tune": None,
        }
        super().__init__(recipe.model_copy(update=changes))

    @cached_property
    def splits(self) -> Splits:
        """Training and validation rows."""
        return load_splits(self.recipe.data, self.task, read_test=False)


class TrialJob(StudyJob):
    """One trial; the rows are those of the study."""

    def __init__(self, recipe: Recipe, output: Path, study: StudyJob):
        super().__init__(recipe, output)
        self.study = study

    @cached_property
    def splits(self) -> Splits:
        """The study's rows."""
        return self.study.splits

    def stage_splits(self, data: Data) -> Splits:
        """The study's rows of a stage that has its own."""
        return self.study.stage_splits(data)


class AskedJob(TrialJob):
    """A trial that does nothing: its steps only say what they would be made from."""

    def step(
        self, name: str, inputs: Mapping[str, Any], parents: Mapping[str, Artifact], work: Work, together: bool = False
    ) -> Artifact:
        """An artifact that is not there; its manifest holds the digest of the step's inputs."""
        lineage = {parent: artifact.digest for parent, artifact in parents.items()}
        return Artifact(self.output / name, {"digest": digest_of({"inputs": inputs, "parents": lineage})})


class Candidates:
    """Recipes that differ from one another in the searched values alone.

    Args:
        raw: the recipe as it was written, overrides put in.
        plan: its `tune` section.
    """

    def __init__(self, raw: Mapping[str, Any], plan: Tune):
        self.given = {key: value for key, value in raw.items() if key != "tune"}
        self.plan = plan
        self.study = StudyJob(load_recipe(self.given))

    def raw(self, values: Values) -> dict[str, Any]:
        """The recipe as one would write it with these values.

        What the teacher's fine-tuning inherits from `training` is spelled out as it was: the search is for the
        student, and all trials learn from one teacher.
        """
        teacher = self.given.get("teacher")
        finetune = teacher.get("finetune") if isinstance(teacher, Mapping) else None
        as_before = {}
        for section, _, field in (path.partition(".") for path in values):
            if section == "training" and isinstance(finetune, Mapping) and field in Optimization.model_fields:
                as_before[field] = finetune.get(field, getattr(self.study.recipe.training, field))
        settings = {**{f"teacher.finetune.{field}": value for field, value in as_before.items()}, **values}
        return apply_overrides(self.given, [f"{key}={json.dumps(value)}" for key, value in settings.items()])

    def trial(self, values: Values, output: Path) -> TrialJob:
        """A trial's job."""
        return TrialJob(self._recipe(values), output, self.study)

    def made_from(self, values: Values, prepared: Artifact | None) -> str:
        """Digest of all that the training of a student with these values depends on."""
        return train_student(self._asked(values), prepared).digest

    def check(self) -> None:
        """Refuse whatever a trial would stumble over, before anything is computed.

        Raises:
            LimbeckError: a key is not one to search, a value is refused, a value would change the teacher, or
                a key changes nothing.
        """
        for key in self.plan.space:
            if key.partition(".")[0] not in SEARCHED:
                what = f"tune.space: '{key}' is not a key to search; all trials share teacher, rows and seed"
                raise RecipeError(what, allowed=", ".join(f"{section}..." for section in SEARCHED))
        axes = {key: points(axis) for key, axis in self.plan.space.items()}
        first = {key: values[0] for key, values in axes.items()}
        alone = [{**first, key: value} for key, values in axes.items() for value in values]
        for values in combinations(axes) if self.plan.sampler == "grid" else alone:
            try:
                check_ahead(self._asked(values))
            except LimbeckError as error:
                told = ", ".join(f"{key}={json.dumps(value)}" for key, value in values.items())
                raise RecipeError(f"the search cannot try {told}\n{error}") from error
        for key, tried in axes.items():
            self._check_reach(key, [{**first, key: tried[0]}, {**first, key: tried[-1]}])

    def _check_reach(self, key: str, ends: list[Values]) -> None:
        """A searched key changes the student's training and leaves the teacher as it is."""
        taught = [prepare(AskedJob(self.study.recipe, self.study.output, self.study))]
        taught += [prepare(self._asked(values)) for values in ends]
        if len({None if teacher is None else teacher.digest for teacher in taught}) > 1:
            what = f"tune.space: '{key}' would change the teacher, which all trials share"
            raise RecipeError(what, fix="search another key, or name a teacher that is ready: teacher.model=FOLDER")
        if ends[0] != ends[1] and len({self.made_from(values, taught[0]) for values in ends}) == 1:
            what = f"tune.space: '{key}' changes nothing that the student learns from"
            fix = "search the stages' own key if they set it: stages.NAME..."
            raise RecipeError(what, fix=fix if key.startswith("training.") else None)

    def _asked(self, values: Values) -> AskedJob:
        return AskedJob(self._recipe(values), self.study.output, self.study)

    def _recipe(self, values: Values) -> Recipe:
        return load_recipe(self.raw(values))
