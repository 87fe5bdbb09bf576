"""What the steps of a run have in common: the recipe's rows, processors and models, each made once when asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from limbeck.core import artifacts
from limbeck.core.artifacts import Artifact, digest_of
from limbeck.core.errors import ModelError
from limbeck.core.progress import say
from limbeck.core.recipe import Data, Model, Recipe, Stage, Student, Teacher, dump_recipe
from limbeck.core.types import Sample
from limbeck.data.dataset import Splits, fingerprint, load_splits
from limbeck.models.load import check_length, folder_digest, load_config, load_model, origin
from limbeck.tasks import Codec, Encoded, Task, class_names
from limbeck.training.engine import processes
from limbeck.training.job import StageJob

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Work = Callable[[Path], Mapping[str, Any]]


class RunJob:
    """A recipe at work.

    Args:
        recipe: what to do.
        force: do every step again, up to date or not.
        ledger: where answers that were paid for are kept; left out: `ledger.sqlite` in the run's folder.

    Attributes:
        rows_from: artifacts that the training rows come from, which what is trained on them depends on.
    """

    def __init__(self, recipe: Recipe, force: bool = False, ledger: Path | None = None):
        self.recipe, self.force = recipe, force
        self.output = recipe.output
        self.ledger = ledger or recipe.output / "ledger.sqlite"
        self.rows_from: dict[str, Artifact] = {}
        self.task = cast(Task, recipe.task)
        self._encoded: list[tuple[Sequence[Sample], Codec, Encoded]] = []
        self._stage_splits: dict[str, Splits] = {}

    @cached_property
    def splits(self) -> Splits:
        """The recipe's rows."""
        return load_splits(self.recipe.data, self.task, need_test=self.recipe.evaluate.split == "test")

    @cached_property
    def label_names(self) -> tuple[str, ...] | None:
        """The classes, in the order of a ready teacher if there is one, else as the data has them."""
        names, teacher = self.splits.label_names, self.recipe.teacher
        if names is None or teacher is None or teacher.is_moving or teacher.endpoint is not None:
            return names
        order = None
        for each in (each for each in (teacher, *teacher.also) if each.finetune is None):
            known = class_names(load_config(each))
            if set(known) != set(names):
                raise ModelError(
                    f"the teacher '{each.model}' knows other classes than the data",
                    got=f"teacher: {', '.join(known[:6])} ({len(known)}); data: {', '.join(names[:6])} ({len(names)})",
                    fix="train it on the data's classes first: teacher.finetune.epochs=3",
                )
            if order is not None and known != order:
                raise ModelError(
                    "the teachers have their classes in different orders",
                    got=f"{', '.join(order[:6])} and {', '.join(known[:6])} ('{each.model}')",
                    fix="train one of them further in this run: finetune.epochs=1",
                )
            order = known
        return order or names

    def data_inputs(self, data: Data | None = None, *, training: bool = True) -> dict[str, Any]:
        """What a step that reads rows depends on; training knows nothing of test rows or of how answers are graded."""
        data = data or self.recipe.data
        spec, rows, task = dump_recipe(data), fingerprint(data), dump_recipe(self.recipe)["task"]
        if training:
            for mapping, key in ((spec, "test"), (rows, "test"), (task, "answer_pattern")):
                mapping.pop(key, None)
        return {"data": spec, "rows": rows, "task": task}

    def step(
        self,
        name: str,
        inputs: Mapping[str, Any],
        parents: Mapping[str, Artifact],
        work: Work,
        together: bool = False,
    ) -> Artifact:
        """Run a step unless it is up to date.

        Args:
            name: the step's name.
            inputs: what the result depends on.
            parents: artifacts that it is made from.
            work: makes the step's files.
            together: all processes do the work, and the first one writes; else only the first one is here.
        """
        run = _step_together if together else _step
        return run(self.output, name, inputs=inputs, parents=parents, work=work, force=self.force)

    # processors and models

    def processor(self, spec: Model, fallback: Any = None) -> Any:
        """The tokenizer or image processor of a model; a new one is made from the rows the model begins with."""
        if isinstance(spec.tokenizer, str):
            return self.task.load_processor(spec.tokenizer, revision=None, trust_remote_code=spec.trust_remote_code)
        if spec.model not in (None, "from-teacher"):
            return self.task.load_processor(
                str(spec.model), revision=spec.revision, trust_remote_code=spec.trust_remote_code
            )
        if spec.tokenizer is None and fallback is not None:
            return fallback
        own = spec.finetune.data if isinstance(spec, Teacher) and spec.finetune is not None else None
        return self.task.new_processor(spec, (self.splits if own is None else self.stage_splits(own)).train)

    def new_model(self, spec: Model, codec: Codec, *, trained: bool, new_head: bool) -> PreTrainedModel:
        """A model as the recipe describes it; weights that are to be trained are float32 and drawn from the seed."""
        torch.manual_seed(self.recipe.seed)
        dtype = torch.float32 if trained else None
        return load_model(spec, self.task.auto_class, settings=codec.settings(), new_head=new_head, dtype=dtype)

    def stored(self, folder: Path, spec: Model) -> tuple[PreTrainedModel, Codec]:
        """A model that a step has saved, in evaluation mode, and its codec; `spec` is what it was made from."""
        saved = Model(
            model=str(folder),
            dtype=spec.dtype,
            attn_implementation=spec.attn_implementation,
            trust_remote_code=spec.trust_remote_code,
        )
        codec = self.task.codec(self.processor(saved), self.label_names)
        model = load_model(saved, self.task.auto_class, settings={})
        if self.label_names is not None and class_names(model.config) != self.label_names:
            raise ModelError(f"{folder} knows other classes than the data", fix="run again with --force")
        return _ready(model), codec

    def teacher(
        self, prepared: Artifact, spec: Teacher | None = None, folder: str = "teacher"
    ) -> tuple[PreTrainedModel, Codec]:
        """A teacher that `prepare` left, the first one unless another is named, in its own precision."""
        spec = spec or cast(Teacher, self.recipe.teacher)
        if f"{folder}/config.json" in prepared.manifest["files"]:
            return self.stored(prepared.path / folder, spec)
        codec = self.task.codec(self.processor(spec), self.label_names)
        return _ready(self.new_model(spec, codec, trained=False, new_head=False)), codec

    # rows in numbers

    def stage_job(self, stage: Stage, codec: Codec, model: PreTrainedModel) -> StageJob:
        """A stage with its rows in numbers, none longer than the model can read."""
        splits = self.stage_rows(stage)
        if unknown := set(splits.label_names or ()) - set(self.label_names or ()):
            raise ModelError(f"stage {stage.name} has classes that the recipe's data has not", got=sorted(unknown)[:5])
        job = StageJob(stage, self.encode(splits.train, codec), self.encode(splits.validation, codec))
        longest = max((f.length for rows in (job.train, job.validation) for f in rows.features), default=0)
        check_length(model, longest, type(model).__name__)
        return job

    def stage_rows(self, stage: Stage) -> Splits:
        """The rows of a stage, its own or the recipe's."""
        return self.splits if stage.data is None else self.stage_splits(stage.data)

    def stage_splits(self, data: Data) -> Splits:
        """The rows of a stage that has its own; read once."""
        key = digest_of(dump_recipe(data))
        if key not in self._stage_splits:
            self._stage_splits[key] = load_splits(data, self.task, need_test=False, read_test=False)
        return self._stage_splits[key]

    def encode(self, samples: Sequence[Sample], codec: Codec) -> Encoded:
        """Samples in numbers, made once per codec."""
        for rows, by, encoded in self._encoded:
            if rows is samples and by is codec:
                return encoded
        self._encoded.append((samples, codec, codec.encode(samples)))
        return self._encoded[-1][2]

    def trained_on(self) -> list[Sequence[Sample]]:
        """Training rows of every stage, the teacher's fine-tuning among them."""
        teachers = [self.recipe.teacher, *self.recipe.teacher.also] if self.recipe.teacher else []
        stages = [*self.recipe.stages, *(each.finetune for each in teachers if each.finetune is not None)]
        return [(self.splits if s.data is None else self.stage_splits(s.data)).train for s in stages]


def model_inputs(spec: Student | Teacher) -> dict[str, Any]:
    """What a step that starts from a model depends on; the weights of `from-teacher` are the parent's."""
    own = spec.model not in ("from-teacher", "moving-average")
    weights = origin(spec).fingerprint if own else None
    folder = spec.tokenizer if isinstance(spec.tokenizer, str) and Path(spec.tokenizer).is_dir() else None
    return {"model": dump_recipe(spec), "weights": weights, "tokenizer": folder and folder_digest(Path(folder))}


def _ready(model: PreTrainedModel) -> PreTrainedModel:
    torch.nn.Module.to(model, device())
    return model.eval()


def device() -> torch.device:
    """Where models run outside training."""
    return processes().device


def _step(output: Path, name: str, *, work: Work, **facts: Any) -> Artifact:
    """`artifacts.step`, and a line on the terminal that says what became of it."""

    def announced(folder: Path) -> Mapping[str, Any]:
        say(f"[bold]{name}[/bold]")
        return work(folder)

    artifact, done = artifacts.step(output, name, work=announced, **facts)
    if not done:
        say(f"[bold]{name}[/bold]: up to date")
    return artifact


def _step_together(output: Path, name: str, *, work: Work, **facts: Any) -> Artifact:
    """The same for many processes: the first decides whether there is work, and all do it."""
    from accelerate.utils import broadcast_object_list

    def tell(word: str | None) -> str:
        message = [word]
        broadcast_object_list(message)
        return str(message[0])

    state = processes()
    if state.num_processes == 1:
        return _step(output, name, work=work, **facts)
    if not state.is_main_process:
        while tell(None) == "work":
            work(output / f".{name}.partial")
        return artifacts.load(output / name)

    def announced(folder: Path) -> Mapping[str, Any]:
        tell("work")
        return work(folder)

    artifact = _step(output, name, work=announced, **facts)
    tell("done")
    return artifact
