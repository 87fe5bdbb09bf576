"""doctor: what is wrong with a recipe before it is run, and with a run after."""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch

from limbeck.core.errors import LimbeckError, RecipeError
from limbeck.core.parts import Part, build, names
from limbeck.core.recipe import Model, Recipe, Stage, Student, Teacher, load_recipe
from limbeck.data.dataset import Splits
from limbeck.doctor._base import SEVERITIES, AfterCheck, BeforeCheck, Check, Finding
from limbeck.doctor.plan import Plan, Probe, Read, Writing
from limbeck.doctor.run import read_run
from limbeck.models.load import load_config, new_config, new_model
from limbeck.pipeline._ahead import check_ahead, check_recipe
from limbeck.pipeline._job import RunJob
from limbeck.pipeline._probe import probe as make_probe
from limbeck.pipeline._teaching import all_teachers, folder_of
from limbeck.pipeline.cache import refuse_uncachable
from limbeck.pipeline.plan import plan as plan_writing
from limbeck.tasks import Codec, Encoded

C = TypeVar("C", bound=Check)
R = TypeVar("R")


def examine_recipe(recipe: Recipe, *, probe: bool = False) -> list[Finding]:
    """Look at a recipe before anything is computed. Rows are read, models are made without weights.

    Args:
        recipe: what would be run.
        probe: make a few steps too, to see how long they take.

    Returns:
        Findings, the worst first.

    Raises:
        RecipeError: the recipe's teacher is to come out of another recipe that has not been run.
    """
    planned = _RecipePlan(_with_taught(recipe), probe)
    return _all([c for c in _checks() if isinstance(c, BeforeCheck)], lambda check: check.look(planned))


def examine_run(folder: Path) -> list[Finding]:
    """Look at what a run left in its folder; nothing else is read.

    Args:
        folder: the recipe's `output`.

    Returns:
        Findings, the worst first.

    Raises:
        ArtifactError: it is no run, or it is damaged.
    """
    run = read_run(folder)
    return _all([c for c in _checks() if isinstance(c, AfterCheck)], lambda check: check.look(run))


def _checks() -> list[Part]:
    return [build("check", name) for name in names("check")]


def _all(checks: Sequence[C], look: Callable[[C], Iterator[Finding]]) -> list[Finding]:
    """What all checks find; an error that several run into is told by the first."""
    found: list[Finding] = []
    for check in sorted(checks, key=lambda check: check.order):
        try:
            for each in look(check):
                found.append(each)
        except LimbeckError as error:
            refused = check.refused(error)
            if (refused.reason, refused.evidence) not in {(each.reason, each.evidence) for each in found}:
                found.append(refused)
    return sorted(found, key=lambda finding: SEVERITIES.index(finding.severity))


def _with_taught(recipe: Recipe) -> Recipe:
    """The recipe with the students of other recipes in the place of teachers that are given by one."""

    def ready(teacher: Teacher) -> Teacher:
        if teacher.recipe is None:
            return teacher
        student = load_recipe(teacher.recipe).output / "train" / "student"
        if not student.is_dir():
            what = "the teacher comes out of another recipe, which has not been run"
            raise RecipeError(
                what, got=teacher.recipe, fix=f"limbeck train {teacher.recipe}, or look at that one first"
            )
        return teacher.model_copy(update={"recipe": None, "model": str(student)})

    if recipe.teacher is None:
        return recipe
    teacher = ready(recipe.teacher)
    return recipe.model_copy(update={"teacher": teacher.model_copy(update={"also": [*map(ready, teacher.also)]})})


class _Once(cached_property[R]):
    """A property that is read once, whether it can be or not: what is not on the hub is not asked for again."""

    def __get__(self, instance: Any, owner: type[Any] | None = None) -> Any:
        """The value, or the error of the first time."""
        key = f"no {self.attrname}"
        if instance is not None and key in instance.__dict__:
            raise instance.__dict__[key]
        try:
            return super().__get__(instance, owner)
        except LimbeckError as error:
            instance.__dict__[key] = error
            raise


class _RecipePlan(Plan):
    """A recipe, read with what a run would read it with."""

    def __init__(self, recipe: Recipe, probe: bool):
        self.recipe, self.job, self._probe = recipe, RunJob(recipe), probe

    def check(self) -> None:
        check_recipe(self.recipe)
        refuse_uncachable(self.recipe)
        self._fits_models  # noqa: B018

    @_Once
    def _fits_models(self) -> None:
        check_ahead(self.job)

    @_Once
    def probe(self) -> Probe | None:
        return make_probe(self.recipe) if self._probe else None

    @_Once
    def splits(self) -> Splits:
        return self.job.splits

    @_Once
    def teachers(self) -> Sequence[Read]:
        first: Any = None
        found = []
        for place, spec in enumerate(all_teachers(self.recipe.teacher)):
            load_config(spec)  # before the tokenizer, which cannot be there if this is not
            codec = self._codec(self.job.processor(spec, first))
            first = first or codec.processor
            found.append(Read(folder_of(place), spec, codec, self._without_weights(spec, codec)))
        return found

    @_Once
    def student(self) -> Read:
        spec = self.recipe.student
        if spec.model == "from-teacher":
            self._fits_models  # noqa: B018  (a layer that is not there cannot be left out)
            teacher = self.teachers[0]
            exact = set(spec.cuts) <= set(_CUTS) and spec.compact is None
            return Read("student", spec, teacher.codec, self._cut(spec, teacher), exact)
        load_config(spec)
        codec = self._codec(self.job.processor(spec, self.teachers[0].codec.processor if self.teachers else None))
        return Read("student", spec, codec, self._without_weights(spec, codec))

    def encoded(self, stage: Stage, reader: Read) -> Encoded:
        return self.job.encode(self.job.stage_rows(stage).train, reader.codec)

    def steps(self, stage: Stage) -> int:
        if stage.max_steps is not None:
            return stage.max_steps
        return max(1, math.ceil(stage.epochs * len(self.job.stage_rows(stage).train) / stage.global_batch_size))

    def writing(self) -> list[Writing]:
        if not self.recipe.generate:
            return []
        with tempfile.TemporaryDirectory() as folder:
            # An estimate opens the ledger; a run that has none yet must not be given one by this.
            known = (self.recipe.output / "ledger.sqlite").exists()
            recipe = self.recipe if known else self.recipe.model_copy(update={"output": Path(folder)})
            found = plan_writing(recipe)
        return [
            Writing(
                each.stage,
                each.model,
                each.estimate.requests,
                each.estimate.worst.tokens,
                None if each.currency is None else each.estimate.worst.cost,
                each.currency,
            )
            for each in found
        ]

    def _codec(self, processor: Any) -> Codec:
        return self.job.task.codec(processor, self.job.label_names)

    def _without_weights(self, spec: Model, codec: Codec) -> Any:
        if spec.trust_remote_code:
            return None
        settings = codec.settings()
        if spec.config is not None:
            return self._on_meta(new_config(spec.config, settings), spec)
        config = load_config(spec)
        for name in ("id2label", "label2id"):
            if name in settings:
                setattr(config, name, settings[name])
        return self._on_meta(config, spec)

    def _cut(self, spec: Student, teacher: Read) -> Any:
        """The teacher with fewer layers, and narrower; what else is cut from it makes it smaller still."""
        if teacher.model is None:
            return None
        config = copy.deepcopy(teacher.model.config)
        inner = config.get_text_config()
        if spec.layers is not None:
            inner.num_hidden_layers = len(spec.layers)
            if kinds := getattr(inner, "layer_types", None):
                inner.layer_types = [kinds[i] for i in spec.layers]
        for name in (name for name in _CUTS if name != "layers" and getattr(spec, name) is not None):
            setattr(inner, name, getattr(spec, name))
        return self._on_meta(config, spec)

    def _on_meta(self, config: Any, spec: Model) -> Any:
        extra = {} if spec.attn_implementation is None else {"attn_implementation": spec.attn_implementation}
        with torch.device("meta"):
            return new_model(config, self.job.task.auto_class, dtype=torch.float32, **extra)


_CUTS = ("layers", "hidden_size", "intermediate_size")
"""What a config of the teacher's kind can tell of a student that is cut from it."""
