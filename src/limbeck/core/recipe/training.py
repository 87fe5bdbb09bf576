"""Training: optimization, stages, the terms of the loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, field_validator, model_validator

from limbeck.core.recipe.data import Data
from limbeck.core.recipe.section import AnyAugmentation, AnyCurriculum, AnyObjective, Section
from limbeck.core.recipe.smaller import Prune, Quantize
from limbeck.core.schedules import AnySchedule, Schedule

PARTS = ("basic", "specialised", "adversarial")
"""What the short form of a mixture, three numbers, gives weights to."""


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

    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Arithmetic of forward and backward; weights and optimizer stay in float32. fp16 needs a GPU."""
    gradient_checkpointing: bool = False
    """Keep less for the backward pass and compute it again: less memory, about a third more time."""
    save_steps: Annotated[int, Field(gt=0)] = 100
    """Write a checkpoint every so many steps; a killed run goes on from the last one."""
    per_device_eval_batch_size: Annotated[int, Field(gt=0)] = 64
    """Samples in one forward pass of validation and evaluation."""
    gradient_cosine_steps: Annotated[int, Field(gt=0)] | None = None
    """Every so many steps, write down how large each term's gradient is and whether they point the same way, for
    `limbeck doctor`: one more forward and backward pass a term. Left out: never."""
    generations: Annotated[int, Field(ge=0)] = 2
    """Validation prompts that a language model answers after each validation, for `limbeck watch`. Nothing is learned
    from them; 0: none."""
    report_to: list[Literal["tensorboard", "wandb", "trackio", "mlflow", "swanlab"]] = []
    """Trackers, by Accelerate's names."""


class Gate(Section):
    """Which samples the teacher is asked about; those that the student finds easy are left to their labels."""

    by: Literal["entropy", "margin", "loss"] = "entropy"
    """How difficulty is seen: entropy of the student's answer over log V, 1 - (p1 - p2) between its two likeliest
    classes, or the loss of the true label. (A ratio to the teacher's loss needs the teacher's answer: it is a
    weight, of `weighted_kl`.)"""
    share: Annotated[float, Field(gt=0, le=1)] | None = None
    """Ask about this share of each micro-batch, the hardest."""
    threshold: Annotated[float, Field(ge=0)] | None = None
    """Or ask about all that are at least as difficult as this."""

    @field_validator("by", mode="before")
    @classmethod
    def _without_the_teacher(cls, value: Any) -> Any:
        """A gate decides before the teacher is asked, so it cannot go by what the teacher says."""
        if value == "loss_ratio":
            raise ValueError(
                "a ratio of losses needs the teacher's answer, which a gate is there to save; take the term "
                "`{type: weighted_kl, by: loss_ratio}`, which weighs every row by it, or the gate `by: loss`"
            )
        return value

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        if (self.share is None) == (self.threshold is None):
            raise ValueError("give exactly one of `share` and `threshold`")
        return self


class Balance(Section):
    """How much all terms on outputs weigh against all terms on layers, whatever their scales."""

    output: Annotated[float, Field(ge=0)] = 3.0
    """Cross-entropy, KL and the like, together."""
    intermediate: Annotated[float, Field(ge=0)] = 2.0
    """Hidden states, attention, relations and the like, together."""


class Mixture(Section):
    """How much of every step comes from which part of the training rows.

    Short forms: `{basic: 20, specialised: 5, adversarial: 1}` gives the weights alone, and `"20:5:1"` means just that.
    """

    by: str = "stage"
    """The column that says to which part a row belongs; generated rows bear the name of their data stage in `stage`."""
    weights: Annotated[dict[str, AnySchedule], Field(min_length=1)]
    """By part, its weight: a number or a schedule. Zero leaves its rows out."""

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, value: Any) -> Any:
        if isinstance(value, str):
            numbers = value.split(":")
            try:
                weights = [float(number) for number in numbers]
            except ValueError:
                weights = []
            if len(weights) != len(PARTS):
                allowed = ":".join(PARTS)
                raise ValueError(f"'{value}' is no mixture; three numbers for {allowed} are, or a mapping")
            return {"weights": dict(zip(PARTS, weights, strict=True))}
        if isinstance(value, int):
            raise ValueError('write a mixture in quotes, "20:5:1"; without them YAML reads one number')
        if isinstance(value, Mapping) and "weights" not in value:
            return {"weights": value}
        return value

    @field_validator("weights")
    @classmethod
    def _follow_progress_alone(cls, weights: dict[str, Schedule]) -> dict[str, Schedule]:
        for name, weight in weights.items():
            if type(weight).after is not Schedule.after:
                raise ValueError(f"the weight of {name} hangs on validations, but the order of rows must not")
        return weights


class OnPolicy(Section):
    """Answers that the student writes itself, for the teacher to judge token by token."""

    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the steps whose answers are the student's own (GKD's lambda); the others have the data's. Terms that
    read labels, cross_entropy for one, count in the others only."""
    max_new_tokens: Annotated[int, Field(gt=0)] = 128
    """Longest answer; one that reaches it is cut there."""
    temperature: Annotated[float, Field(ge=0)] = 1.0
    """Of the drawing; 0 is greedy. It is not the temperature of the terms."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Draw from the likeliest tokens that hold this much of the probability."""
    refresh: Annotated[int, Field(gt=0)] = 1
    """Answers are written for so many steps ahead, so the last of them is `refresh` - 1 steps old when it is used."""
    per_device_generation_batch_size: Annotated[int, Field(gt=0)] | None = None
    """Answers that one process writes at a time. Left out: all that it needs."""
    engine: Literal["auto", "transformers", "vllm"] = "auto"
    """What runs the student while it writes. `auto`: transformers, which repeats its texts exactly in a resumed run;
    vllm is asked for by name."""


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
    balance: Balance | None = None
    """Make the terms equal in size first, as the stage's first batch shows them, then weigh the two groups like this.
    Within a group, the terms' own weights say how they share."""
    gate: Gate | None = None
    """Ask the teacher only about hard samples. Left out: about all."""
    gradient_penalty: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the norm of the loss's gradient at the input embeddings (or pixels), a mean over samples. Two more
    forward and backward passes."""
    freeze: list[str] = []
    """Parameters of the student that do not learn in this stage: names with `*`, for instance `"*embeddings*"`."""
    augment: list[AnyAugmentation] = []
    """Random changes of the training samples, done in this order; teacher and student see the same ones."""
    views: Annotated[list[Literal["clean", "augmented"]], Field(min_length=1)] = ["augmented"]
    """How each sample stands in a batch, once for each entry; consistency terms compare `[clean, augmented]`."""
    data: Data | None = None
    """Rows of this stage, where they are not the recipe's."""
    mixture: Mixture | None = None
    """How much of every step comes from which part of the rows, such as `{basic: 20, specialised: 5, adversarial: 1}`.
    Left out: all rows alike."""
    curriculum: AnyCurriculum | None = None
    """From easy to difficult: which rows are drawn from when; within each part of a mixture by itself. Left out: from
    all rows, all along."""
    on_policy: OnPolicy | None = None
    """Train on answers that the student writes itself. Left out: on the data's alone."""
    prune: Prune | None = None
    """Take heads and units out of the student when the stage begins. Left out: it keeps its size."""
    quantize: Quantize | None = None
    """Learn with weights rounded to integers. Left out: without rounding."""

    @model_validator(mode="after")
    def _shows_what_is_augmented(self) -> Self:
        if self.augment and "augmented" not in self.views:
            raise ValueError("`augment` changes nothing: no entry of `views` is `augmented`")
        return self

    @model_validator(mode="after")
    def _fits_its_own_text(self) -> Self:
        if self.on_policy is None:
            return self
        labelled = [term.type() for term in self.terms if getattr(term, "reads_labels", False)]
        if not set(asking(self)) - set(labelled):
            raise ValueError("`on_policy` needs a term that asks the teacher and reads no labels, such as reverse_kl")
        if labelled and self.on_policy.share == 1:
            what = f"{labelled[0]} reads labels, and on the student's own text those are its own guesses"
            raise ValueError(f"{what}; give `on_policy.share` less than 1, or leave the term out")
        if self.augment or len(self.views) > 1:
            raise ValueError("`on_policy` writes its own texts, so that `augment` and `views` do not go with it")
        if self.gate is not None and self.gate.by == "loss":
            raise ValueError("`gate.by: loss` reads labels, which the student's own text has not; take entropy")
        return self

    @model_validator(mode="after")
    def _rounds_what_it_writes(self) -> Self:
        if self.quantize is not None and self.on_policy is not None and self.on_policy.engine == "vllm":
            raise ValueError("vllm would write with weights that are not rounded; take `engine: transformers`")
        return self

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
        if names := asking(self):
            raise ValueError(f"the teacher has no teacher of its own, but these terms need one: {', '.join(names)}")
        if self.prune is not None or self.quantize is not None:
            raise ValueError("`prune` and `quantize` are for the student's stages")
        return self


def asking(stage: Stage) -> list[str]:
    """The stage's terms that need a teacher."""
    return [term.type() for term in stage.terms if getattr(term, "asks_teacher", False)]
