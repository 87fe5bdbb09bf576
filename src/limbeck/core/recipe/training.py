"""Training: optimization, stages, the terms of the loss."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, field_validator, model_validator

from limbeck.core.recipe.data import Data
from limbeck.core.recipe.section import AnyAugmentation, AnyObjective, Section


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

    @model_validator(mode="after")
    def _shows_what_is_augmented(self) -> Self:
        if self.augment and "augmented" not in self.views:
            raise ValueError("`augment` changes nothing: no entry of `views` is `augmented`")
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
        return self


def asking(stage: Stage) -> list[str]:
    """The stage's terms that need a teacher."""
    return [term.type() for term in stage.terms if getattr(term, "asks_teacher", False)]
