"""The whole job."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from limbeck.core.recipe.cache import CacheSection
from limbeck.core.recipe.cascade import Cascade
from limbeck.core.recipe.data import Data
from limbeck.core.recipe.evaluate import Evaluate, Limits
from limbeck.core.recipe.generate import DataStages
from limbeck.core.recipe.models import Student, Teacher
from limbeck.core.recipe.optimize import AnyOptimize
from limbeck.core.recipe.report import Report
from limbeck.core.recipe.section import AnyCompressor, AnyTask, Section
from limbeck.core.recipe.ship import Exports, check_exports
from limbeck.core.recipe.smaller import refuse_other_grid
from limbeck.core.recipe.training import Optimization, Stage, Training, asking
from limbeck.core.recipe.tune import Tune


class Recipe(Section):
    """A whole job."""

    task: AnyTask
    """causal-lm, text-classification or image-classification, with fields if need be."""
    output: Path
    """Folder of the run."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Weights, order and dropout of the training."""
    teacher: Teacher | None = None
    """The model that is learned from; may be left out while no term asks for it."""
    student: Student
    """The model that learns."""
    data: Data
    """Rows and columns."""
    generate: DataStages = []
    """What is written before the training, and learned from: one data stage, or a list of them. Left out: nothing."""
    cache: CacheSection | None = None
    """Record what the teacher says once, and train from that. Left out: the teacher is asked in every step."""
    training: Training = Training()
    """Defaults of every stage, and what holds for the run."""
    stages: Annotated[list[Stage], Field(min_length=1)]
    """Stages, in order."""
    baseline: bool = False
    """Also train the same student the same way on the labels alone, for comparison."""
    evaluate: Evaluate = Evaluate()
    """How the final figures are taken."""
    budget: Limits | None = None
    """What the student may cost; a student beyond it is refused. Left out: anything."""
    compress: AnyCompressor | None = None
    """Make the trained student smaller, `int8` for instance, if it answers as well as before. Left out: it stays."""
    optimize: AnyOptimize = None
    """Make the student cheaper to ask, where that changes no answer; a list of passes, or `true` for the usual ones,
    will do. Left out: it is asked as it is."""
    export: Exports = []
    """Formats that the student is brought into for those who will run it, `[onnx]` for instance; each is loaded back
    and compared with the student on validation rows. Left out: none."""
    cascade: Cascade | None = None
    """Models that are asked where the student is unsure, and what is promised of them together. Left out: none."""
    report: Report = Report()
    """What the report shows."""
    tune: Tune | None = None
    """What `limbeck tune` searches."""

    @model_validator(mode="before")
    @classmethod
    def _inherit(cls, data: Any) -> Any:
        """Stages and the teacher's fine-tuning start from the recipe's `training`."""
        if not isinstance(data, Mapping):
            return data
        # A section whose lines are all commented out reads as null; it is as good as left out.
        data = {
            k: v
            for k, v in data.items()
            if v is not None or k not in ("training", "evaluate", "report", "generate", "export")
        }
        if not isinstance(training := data.get("training", {}), Mapping | Training):
            return data
        shared = {k: v for k, v in dict(training).items() if k in Optimization.model_fields}
        if isinstance(data.get("stages"), list):
            data["stages"] = [{**shared, **s} if isinstance(s, Mapping) else s for s in data["stages"]]
        data["teacher"] = _inheriting(data.get("teacher"), shared)
        return data

    @model_validator(mode="after")
    def _fits_together(self) -> Recipe:
        names = [stage.name for stage in self.stages]
        if repeated := {n for n in names if names.count(n) > 1}:
            raise ValueError(f"stage names must differ; given twice: {', '.join(sorted(repeated))}")
        if self.teacher is None:
            if self.student.model == "from-teacher":
                raise ValueError("the student is `from-teacher`, but the recipe has no `teacher`")
            if names := [term for stage in self.stages for term in asking(stage)]:
                raise ValueError(f"the recipe has no `teacher`, but these terms need one: {', '.join(names)}")
        elif "from-teacher" in (each.model for each in (self.teacher, *self.teacher.also)):
            raise ValueError("`from-teacher` is for the student")
        elif self.teacher.is_moving and self.student.model == "from-teacher":
            raise ValueError("the student is `from-teacher`, but the teacher is the student's own past")
        if self.teacher is not None:
            self.teacher.refuse_idle()
            self._ask_for_text_alone(self.teacher)
        self._have_a_writer()
        self._stay_on_the_grid()
        check_exports(self.export)
        if self.budget is not None and self.budget.price is not None and self.evaluate.speed.price_per_hour is None:
            raise ValueError("`budget.price` needs to know what an hour costs: evaluate.speed.price_per_hour=...")
        return self

    def _ask_for_text_alone(self, teacher: Teacher) -> None:
        if teacher.endpoint is None:
            return
        if self.student.model == "from-teacher":
            raise ValueError("the student is `from-teacher`, but an `endpoint` has no weights here to cut it from")
        if terms := [f"{term} (stage {stage.name})" for stage in self.stages for term in asking(stage)]:
            what = "an `endpoint` gives text alone, but these terms ask the teacher for distributions or layers"
            raise ValueError(f"{what}: {', '.join(terms)}; take cross_entropy on what it writes (`generate`)")
        if all(each.recorded for each in self.generate):
            raise ValueError("the teacher is an `endpoint`, but nothing is asked of it; add `generate`")

    def _stay_on_the_grid(self) -> None:
        changed = [stage.name for stage in self.stages if stage.prune is not None or stage.quantize is not None]
        if changed and self.student.lora is not None:
            raise ValueError(f"`prune` and `quantize` change all weights, `student.lora` none (stage {changed[0]})")
        if changed and self.teacher is not None and self.teacher.is_moving and any(s.prune for s in self.stages):
            raise ValueError("the teacher is the student's own past, which cannot follow it through `prune`")
        for before, after in pairwise(self.stages):
            if before.quantize is not None and after.quantize != before.quantize:
                raise ValueError(
                    f"stage {after.name} would take the weights off the grid that stage {before.name} put them on; "
                    "give it the same `quantize`, or put it first"
                )
        plan = self.stages[-1].quantize
        if plan is not None and self.compress is not None:
            refuse_other_grid(plan, self.compress, in_blocks=getattr(self.task, "unit", None) == "tokens")

    def _have_a_writer(self) -> None:
        names = [each.name for each in self.generate]
        if repeated := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"names in `generate` must differ; given twice: {', '.join(sorted(repeated))}")
        for each in (each for each in self.generate if not each.recorded):
            if each.writer is None and (self.teacher is None or self.teacher.is_moving):
                raise ValueError(
                    f"nobody can write for `generate` ({each.name}): give a `teacher`, or a `writer` there"
                )


def _inheriting(teacher: Any, shared: Mapping[str, Any]) -> Any:
    """A teacher's section, and those of its `also`, whose fine-tuning starts from what is shared."""
    if not isinstance(teacher, Mapping):
        return teacher
    teacher = dict(teacher)
    if isinstance(teacher.get("finetune"), Mapping):
        teacher["finetune"] = {**shared, **teacher["finetune"]}
    if isinstance(teacher.get("also"), list):
        teacher["also"] = [_inheriting(each, shared) for each in teacher["also"]]
    return teacher
