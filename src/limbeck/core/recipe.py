"""The recipe: one YAML file that says what is to be distilled, from what, into what, and how.

Each section is a pydantic model with a text under every field; `limbeck schema` hands them to editors.
Field names follow Hugging Face. There is no second configuration: the resolved recipe, every default
spelled out, is stored with the run.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

from limbeck.core.errors import RecipeError
from limbeck.core.parts import Part, PartOf, refuse_unknown
from limbeck.core.yaml import apply_overrides, read_yaml

AnySource = Annotated[Part, PartOf("source")]
AnyObjective = Annotated[Part, PartOf("objective")]
AnyTask = Annotated[Part, PartOf("task")]

_SOURCE: TypeAdapter[Part] = TypeAdapter(AnySource)


class Section(BaseModel):
    """A mapping in a recipe. Unknown keys are refused with the nearest known one suggested."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True, protected_namespaces=()
    )

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, data: Any) -> Any:
        if isinstance(data, Mapping):
            refuse_unknown(data, cls.model_fields)
        return data


class Data(Section):
    """Where the rows come from, and which columns mean what."""

    train: AnySource
    """Rows to learn from: a built-in name, a file, a folder, or a hub dataset."""
    validation: AnySource | float | None = None
    """Rows to choose checkpoints on: a source, or the share of the training rows to hold out.
    Left out: the training source's own `validation` split, or else a tenth of its rows."""
    test: AnySource | None = None
    """Rows for the final figures. Left out: the `test` split of the training source."""
    text: str | None = None
    """Column with the text (text classification)."""
    text_pair: str | None = None
    """Column with a second text, for tasks on pairs."""
    image: str | None = None
    """Column with the image."""
    label: str | None = None
    """Column with the class, a name or a number."""
    prompt: str | None = None
    """Column with the prompt (language modelling)."""
    answer: str | None = None
    """Column with the answer to learn."""
    messages: str | None = None
    """Column with a conversation, a list of {role, content}; takes the place of prompt and answer."""
    id: str | None = None
    """Column with a stable id. Left out: the split and the row's number."""
    max_samples: Annotated[int, Field(gt=0)] | None = None
    """Keep this many training rows, drawn by `seed`; the same rows whatever else changes."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Draws the validation rows and the subsample. Not changed by the recipe's `seed`."""

    @field_validator("validation", mode="before")
    @classmethod
    def _share_or_source(cls, value: Any) -> Any:
        """Told apart here, so that an error speaks of the one that was meant."""
        if value is None:
            return None
        if isinstance(value, int | float) and not isinstance(value, bool):
            if not 0 < value < 1:
                raise ValueError("a share of the training rows lies between 0 and 1")
            return float(value)
        return _SOURCE.validate_python(value)

    def columns(self) -> dict[str, str]:
        """The columns that the recipe names, by what they mean."""
        roles = ("text", "text_pair", "image", "label", "prompt", "answer", "messages", "id")
        return {role: getattr(self, role) for role in roles if getattr(self, role) is not None}


class TrainTokenizer(Section):
    """A small tokenizer made from the training texts, for models built from a config."""

    train: Literal["bpe"] = "bpe"
    """Byte-level BPE; every digit is a token of its own; decoding loses nothing."""
    vocab_size: Annotated[int, Field(ge=260)] = 512
    """Entries, the 256 bytes and the special tokens among them."""


class Model(Section):
    """A model: from the hub, from a folder, or new from a config."""

    model: str | None = None
    """A hub name or a folder; for a student also `from-teacher`."""
    config: dict[str, Any] | None = None
    """Or a new model with random weights: a transformers config, `model_type` and its fields."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""
    tokenizer: str | TrainTokenizer | None = None
    """Tokenizer or image processor, where it is not the model's own."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Type of the weights in memory. `auto`: as stored (teacher); float32 (whatever is trained)."""
    attn_implementation: str | None = None
    """`sdpa`, `eager`, `flash_attention_2`; left out: the library's choice."""
    trust_remote_code: bool = False
    """Run Python code that comes with a model. Off unless you have read that code."""

    @field_validator("tokenizer", mode="before")
    @classmethod
    def _named_or_trained(cls, value: Any) -> Any:
        """Told apart here, so that an error speaks of the one that was meant."""
        if isinstance(value, Mapping):
            return TrainTokenizer.model_validate(value)
        if not isinstance(value, str | TrainTokenizer | None):
            raise ValueError(f"a name, a folder or {{train: bpe}} is wanted, got {value!r}")
        return value

    @field_validator("model", "tokenizer")
    @classmethod
    def _at_home(cls, value: Any) -> Any:
        """`~/x` is a folder below the user's own."""
        return os.path.expanduser(value) if isinstance(value, str) and value.startswith("~") else value

    @model_validator(mode="after")
    def _one_origin(self) -> Model:
        if (self.model is None) == (self.config is None):
            raise ValueError("give exactly one of `model` and `config`")
        if self.config is not None and "model_type" not in self.config:
            raise ValueError("a config needs `model_type`, for instance qwen3, bert, vit or resnet")
        return self


class Optimization(Section):
    """How a model is trained; stages and fine-tuning inherit what they do not set."""

    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """Peak of the schedule."""
    lr_scheduler_type: Literal["cosine", "linear", "constant"] = "cosine"
    """Shape after the warm-up; cosine and linear end at zero."""
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Share of a stage's steps in which the learning rate rises from zero."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Decoupled, on matrices only: not on biases, norms or scalars."""
    adam_beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """First AdamW moment."""
    adam_beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Second AdamW moment."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Gradients are clipped to this norm."""
    global_batch_size: Annotated[int, Field(gt=0)] = 32
    """Samples in one optimizer step, over all processes."""
    per_device_train_batch_size: Annotated[int, Field(gt=0)] | None = None
    """Samples in one forward pass of one process. Left out: all that fall to the process at once."""
    group_by_length: bool = True
    """Put samples of like length into one batch: less padding, the same samples per epoch."""
    eval_steps: Annotated[int, Field(gt=0)] | None = None
    """Validate every so many steps. Left out: once an epoch."""
    early_stopping_patience: Annotated[int, Field(gt=0)] | None = None
    """End the stage after so many validations without a better score."""


class Training(Optimization):
    """Optimization, and what holds for the whole run."""

    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of forward and backward; weights and optimizer stay in float32."""
    save_steps: Annotated[int, Field(gt=0)] = 100
    """Write a checkpoint every so many steps; a killed run goes on from the last one."""
    per_device_eval_batch_size: Annotated[int, Field(gt=0)] = 64
    """Samples in one forward pass of validation and evaluation."""
    report_to: list[Literal["tensorboard", "wandb", "trackio", "mlflow", "swanlab"]] = []
    """Trackers, by Accelerate's names."""


class Stage(Optimization):
    """A stretch of training with its own terms."""

    name: str
    """What the log and the report call it."""
    epochs: Annotated[float, Field(gt=0)] = 1.0
    """Passes over the stage's training rows."""
    max_steps: Annotated[int, Field(gt=0)] | None = None
    """Optimizer steps, in place of epochs."""
    terms: Annotated[list[AnyObjective], Field(min_length=1)]
    """What is learned: a weighted sum of objectives."""
    data: Data | None = None
    """Rows of this stage, where they are not the recipe's."""

    @model_validator(mode="after")
    def _terms_differ(self) -> Self:
        labels = [getattr(term, "label", term.type()) for term in self.terms]
        if repeated := {label for label in labels if labels.count(label) > 1}:
            raise ValueError(f"two terms are called {', '.join(sorted(repeated))}; give each a `name` of its own")
        return self


class Finetune(Stage):
    """Training of the teacher on the task, before it teaches."""

    name: str = "finetune"
    """What the log and the report call it."""
    terms: Annotated[list[AnyObjective], Field(min_length=1)] = [{"type": "cross_entropy"}]  # type: ignore[list-item]
    """What is learned, from the labels alone."""
    model_config = ConfigDict(validate_default=True)

    @model_validator(mode="after")
    def _nobody_teaches_the_teacher(self) -> Self:
        if asking := _asking(self):
            raise ValueError(f"the teacher has no teacher of its own, but these terms need one: {', '.join(asking)}")
        return self


class Teacher(Model):
    """The model that is learned from."""

    finetune: Finetune | None = None
    """Train it on the task first. Left out: it is used as it is. A new one, from a config, needs it."""

    @model_validator(mode="after")
    def _knows_something(self) -> Self:
        if self.config is not None and self.finetune is None:
            raise ValueError("a new teacher knows nothing; add `finetune`, or name a trained one with `model`")
        return self


class Student(Model):
    """The model that learns."""

    layers: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] | None = None
    """With `from-teacher`: which of the teacher's layers to keep, counted from 0."""

    @model_validator(mode="after")
    def _layers_of_a_teacher(self) -> Student:
        if (self.model == "from-teacher") != (self.layers is not None):
            raise ValueError("`layers` goes with `model: from-teacher`, and that needs `layers`")
        return self


class Evaluate(Section):
    """How the final figures are taken."""

    split: Literal["test", "validation"] = "test"
    """Rows that decide the report's figures."""
    max_samples: Annotated[int, Field(gt=0)] | None = None
    """Use this many of them, drawn by the data's seed."""
    max_new_tokens: Annotated[int, Field(gt=0)] = 256
    """Longest answer of a language model."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Level of every interval."""
    resamples: Annotated[int, Field(ge=100)] = 10_000
    """Bootstrap draws behind an interval."""
    latency_runs: Annotated[int, Field(ge=2)] = 50
    """Timed single requests per model, taken in turns."""


class Report(Section):
    """What the report shows."""

    title: str | None = None
    """Headline; left out: teacher and student by name."""


class Recipe(Section):
    """A whole job."""

    task: AnyTask
    """causal-lm, text-classification or image-classification, with fields if need be."""
    output: Path
    """Folder of the run."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Weights, order and dropout of the training."""
    teacher: Teacher | None = None
    """The model that is learned from; may be left out while no term asks for it."""
    student: Student
    """The model that learns."""
    data: Data
    """Rows and columns."""
    training: Training = Training()
    """Defaults of every stage, and what holds for the run."""
    stages: Annotated[list[Stage], Field(min_length=1)]
    """Stages, in order."""
    baseline: bool = False
    """Also train the same student the same way on the labels alone, for comparison."""
    evaluate: Evaluate = Evaluate()
    """How the final figures are taken."""
    report: Report = Report()
    """What the report shows."""

    @model_validator(mode="before")
    @classmethod
    def _inherit(cls, data: Any) -> Any:
        """Stages and the teacher's fine-tuning start from the recipe's `training`."""
        if not isinstance(data, Mapping):
            return data
        # A section whose lines are all commented out reads as null; it is as good as left out.
        data = {k: v for k, v in data.items() if v is not None or k not in ("training", "evaluate", "report")}
        if not isinstance(training := data.get("training", {}), Mapping | Training):
            return data
        shared = {k: v for k, v in dict(training).items() if k in Optimization.model_fields}
        if isinstance(data.get("stages"), list):
            data["stages"] = [{**shared, **s} if isinstance(s, Mapping) else s for s in data["stages"]]
        teacher = data.get("teacher")
        if isinstance(teacher, Mapping) and isinstance(teacher.get("finetune"), Mapping):
            data["teacher"] = {**teacher, "finetune": {**shared, **teacher["finetune"]}}
        return data

    @model_validator(mode="after")
    def _fits_together(self) -> Recipe:
        names = [stage.name for stage in self.stages]
        if repeated := {n for n in names if names.count(n) > 1}:
            raise ValueError(f"stage names must differ; given twice: {', '.join(sorted(repeated))}")
        if self.teacher is None:
            if self.student.model == "from-teacher":
                raise ValueError("the student is `from-teacher`, but the recipe has no `teacher`")
            if asking := [term for stage in self.stages for term in _asking(stage)]:
                raise ValueError(f"the recipe has no `teacher`, but these terms need one: {', '.join(asking)}")
        elif self.teacher.model == "from-teacher":
            raise ValueError("`from-teacher` is for the student")
        return self


def _asking(stage: Stage) -> list[str]:
    """The stage's terms that need a teacher."""
    return [term.type() for term in stage.terms if getattr(term, "asks_teacher", False)]


def load_recipe(source: Recipe | Mapping[str, Any] | str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """A checked recipe from a file, a mapping, or a recipe, with overrides put in.

    Raises:
        RecipeError: with one line for each thing that is wrong and the full path of its key.
    """
    if isinstance(source, Recipe):
        source = dump_recipe(source)
    name = "the recipe" if isinstance(source, Mapping) else str(source)
    raw = source if isinstance(source, Mapping) else read_yaml(Path(source))
    try:
        return Recipe.model_validate(apply_overrides(raw, overrides))
    except ValidationError as error:
        raise RecipeError(f"{name} is not a valid recipe:\n" + "\n".join(_lines(error.errors()))) from error


def dump_recipe(recipe: Section) -> dict[str, Any]:
    """A recipe or a section as JSON values, every default spelled out."""
    return recipe.model_dump(mode="json")


def _lines(errors: Iterable[ErrorDetails]) -> Iterator[str]:
    """One line for each thing that is wrong; what stages inherit from `training` is told once, there."""
    errors = list(errors)
    at_training = {(e["loc"][1:], e["msg"]) for e in errors if e["loc"][:1] == ("training",)}
    for error in errors:
        if error["loc"][:1] == ("training",) or (error["loc"][-1:], error["msg"]) not in at_training:
            yield _line(error)


def _line(error: ErrorDetails) -> str:
    loc = [str(part) for part in error["loc"]]
    text = error["msg"].removeprefix("Value error, ").replace("\n", "\n    ")
    if error["type"] == "unknown_key":
        loc.append(error["ctx"]["key"])
    elif error["type"] == "model_type":
        text = f"a mapping of keys to values is wanted, got {error['input']!r}"
    elif isinstance(error["input"], str | int | float | None) and error["type"] != "value_error":
        text += f", got {error['input']!r}"
    path = ".".join(loc)
    return f"  {path}: {text}" if path else f"  {text}"
