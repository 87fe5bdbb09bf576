"""From a run's folder to what the playground shows: its models, its task, its rows."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

import torch

from limbeck.core.errors import ArtifactError, DataError, ModelError, RecipeError
from limbeck.core.recipe import Endpoint, Generate, Model, Recipe, Teacher, Writer, load_recipe
from limbeck.core.types import Sample
from limbeck.generation.budget import Budget
from limbeck.generation.endpoint import Endpoint as Connection
from limbeck.live.models import Asked, Behind, Classifier, Plan
from limbeck.live.models import Writer as Writing
from limbeck.models.load import load_config, load_model
from limbeck.pipeline._job import RunJob, device
from limbeck.pipeline._teaching import all_teachers, folder_of
from limbeck.pipeline._writers import WriterAtWork
from limbeck.pipeline.measure import endpoint_at, placed
from limbeck.tasks import class_names
from limbeck.tasks.causal_lm import CausalCodec, CausalLM
from limbeck.tasks.image_classification import ImageClassification
from limbeck.tasks.text_classification import TextClassification

Kind = Literal["text", "image", "prompt"]

_PATIENCE, _ATTEMPTS = 120.0, 2
"""Seconds that one call of an endpoint may take, and how often it is tried: somebody waits."""


class Opened:
    """A run whose models can be asked.

    Args:
        run: the run's folder.
        others: by name, further models: folders, hub names, or `https://HOST/v1#MODEL`.
        api_key: the environment variable with the key of those behind addresses.
        budget_tokens: what each model behind an address may cost, over all sessions.

    Attributes:
        models: all of them, the teacher first.
        kind: what is asked: a text, a picture, or a prompt.

    Raises:
        ArtifactError: the folder is no run that was trained.
        ModelError: a model cannot be loaded, or cannot do the task.
        RecipeError: a name is taken.
    """

    def __init__(
        self, run: Path, others: Mapping[str, str] | None = None, *, api_key: str | None = None, budget_tokens: int
    ):
        self.recipe = _recipe_of(run)
        self.job, self.name = RunJob(self.recipe), run.resolve().name
        self.budget = Budget(tokens=budget_tokens)
        task = self.job.task
        kinds: dict[type, Kind] = {TextClassification: "text", ImageClassification: "image", CausalLM: "prompt"}
        found = [kind for cls, kind in kinds.items() if isinstance(task, cls)]
        if not found:
            raise ModelError(f"there is no page for {task.type()}", allowed="classification, language models")
        self.kind: Kind = found[0]
        self._temperatures = _temperatures(run)
        if self.recipe.teacher is not None and self.recipe.teacher.also:
            self._temperatures.pop("teacher", None)  # that one is of all teachers together
        self.models = list(self._of_run(run))
        names = {each.name for each in self.models}
        for name, where in (others or {}).items():
            if name in names:
                raise RecipeError(f"the run has a model named `{name}` already", fix="another name")
            self.models.append(
                self._behind(name, endpoint_at(where, api_key))
                if where.startswith(("http://", "https://"))
                else self._here(name, placed(where).spec)
            )

    @property
    def task(self) -> Any:
        """The recipe's task."""
        return self.job.task

    @property
    def labels(self) -> tuple[str, ...]:
        """All classes that a model knows; none for language models."""
        names = [name for each in self.models if isinstance(each, Classifier) for name in each.labels]
        return tuple(dict.fromkeys(names))

    @cached_property
    def rows(self) -> Sequence[Sample]:
        """The recipe's test rows, or its validation rows where it has none.

        Raises:
            DataError: they cannot be read.
        """
        splits = self.job.splits
        rows = splits.test or splits.validation
        if not rows:
            raise DataError("the recipe has no rows to draw from")
        return rows

    def draw(self) -> tuple[int, Sample]:
        """A row by chance, and its place."""
        place = random.randrange(len(self.rows))
        return place, self.rows[place]

    def warm(self) -> None:
        """Ask every model that is here something small, so that no first answer is slow; all are known to work then."""
        for each in self.models:
            if not each.paid:
                each.answer(self._something(), Plan(max_new_tokens=2), lambda _: False)
                each.times.clear()

    def _something(self) -> Sample:
        if self.kind == "image":
            from PIL import Image

            return Sample("warm", {"image": Image.new("L", (32, 32))})
        if self.kind == "prompt":
            return Sample("warm", {"messages": [{"role": "user", "content": "1 + 1"}]}, "")
        pair = {"text_pair": "this"} if self.recipe.data.text_pair is not None else {}
        return Sample("warm", {"text": "this", **pair})

    def _of_run(self, run: Path) -> list[Asked]:
        teacher, found = self.recipe.teacher, list[Asked]()
        for place, spec in enumerate(all_teachers(teacher)):
            name, stored = folder_of(place), run / "prepare" / folder_of(place)
            found.append(self._here(name, _teacher_at(stored, spec)))
        if teacher is not None and teacher.endpoint is not None:
            found.append(self._behind("teacher", teacher.endpoint))
        for name, step in (("student", "train"), ("baseline", "baseline")):
            folder = run / step / "student"
            if (folder / "config.json").is_file():
                found.append(self._here(name, Model(model=str(folder))))
        return found

    def _here(self, name: str, spec: Model) -> Asked:
        task = self.job.task
        names = None if isinstance(task, CausalLM) else class_names(load_config(spec))
        codec = task.codec(self.job.processor(spec), names)
        model = load_model(spec, task.auto_class, settings=codec.settings())
        torch.nn.Module.to(model, device())
        model.eval()
        if isinstance(codec, CausalCodec):
            return Writing(name, model, codec)
        return Classifier(name, model, codec, self._temperatures.get(name))

    def _behind(self, name: str, endpoint: Endpoint) -> Asked:
        task, stages = self.job.task, [each for each in self.recipe.generate if each.writer is None]
        if type(task) is not CausalLM:
            raise RecipeError(f"{name} is behind an address, which gives text", got=task.type(), allowed="causal-lm")
        # The run's own teacher is asked as it was when it taught; others get the question as it is.
        own = stages[0] if name == "teacher" and stages else Generate.model_validate({"name": "play"})
        writer = WriterAtWork(self.job, None, Writer(endpoint=endpoint), own)
        hasty = replace(
            cast(Connection, writer.generator), attempts=_ATTEMPTS, timeout=min(_PATIENCE, endpoint.timeout)
        )
        return Behind(name, writer, hasty, task, self.budget)


def _teacher_at(stored: Path, spec: Teacher) -> Model:
    """A teacher as the run used it: one that was ready is not copied into the run, see `RunJob.teacher`."""
    if not (stored / "config.json").is_file():
        if spec.recipe is None:
            return spec
        stored = load_recipe(spec.recipe).output / "train" / "student"
    kept = {name: getattr(spec, name) for name in ("dtype", "attn_implementation", "trust_remote_code")}
    return Model(model=str(stored), **kept)


def _recipe_of(run: Path) -> Recipe:
    """The recipe of a run, which may have been moved since."""
    path, student = run / "recipe.json", run / "train" / "student" / "config.json"
    if not path.is_file() or not student.is_file():
        raise ArtifactError(f"{run} has no trained student", allowed="the folder of a run", fix="limbeck run RECIPE")
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ArtifactError(f"{path} is damaged: it is not JSON", fix="limbeck run RECIPE") from error
    return load_recipe({**fields, "output": str(run)})


def _temperatures(run: Path) -> dict[str, float]:
    """By model, the temperature that evaluation calibrated it with."""
    path = run / "evaluate" / "details" / "reliability.json"
    if not path.is_file():
        return {}
    found = json.loads(path.read_text(encoding="utf-8"))
    return {name: float(each["temperature"]) for name, each in found.items() if each.get("temperature")}
