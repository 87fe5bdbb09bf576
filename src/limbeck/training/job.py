"""What is trained: a student, its stages with their rows, and all that goes with them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from limbeck.core.recipe import Stage, Training
from limbeck.core.types import Batch
from limbeck.objectives import Objective
from limbeck.tasks import Codec, Encoded
from limbeck.training.distiller import Distiller
from limbeck.training.matching import find_pairs
from limbeck.training.step import Teacher

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class StageJob:
    """A stage with its rows in numbers."""

    stage: Stage
    train: Encoded
    validation: Encoded

    @property
    def steps(self) -> int:
        """Optimizer steps in the stage."""
        if self.stage.max_steps is not None:
            return self.stage.max_steps
        return max(1, math.ceil(self.stage.epochs * len(self.train) / self.stage.global_batch_size))

    @property
    def eval_steps(self) -> int:
        """Steps between validations: an epoch unless the recipe says otherwise."""
        return self.stage.eval_steps or max(1, len(self.train) // self.stage.global_batch_size)


@dataclass
class Job:
    """All that a training run needs.

    Attributes:
        title: what the progress bar calls it.
        student: the model that learns, changed in place.
        codec: makes batches.
        stages: what is done, in order; each begins with the best weights of the one before.
        training: precision, checkpoints, trackers.
        seed: of order and dropout.
        teacher: None where no term asks for one.
        shared: class ids that student and teacher have in common, None where all are.
        translate: gives a batch what the teacher reads, where that is not what the student reads.
        unit: what is counted: tokens or samples.
        logs: where trackers write.
        writer: a teacher that writes text, and its codec: what the student's answers are shown beside.
        learnable: names of the student's parameters that may learn; with LoRA, not all.
    """

    title: str
    student: PreTrainedModel
    codec: Codec
    stages: Sequence[StageJob]
    training: Training
    seed: int
    unit: str
    teacher: Teacher | None = None
    shared: Tensor | None = None
    translate: Callable[[Batch], Batch] | None = None
    logs: Path = Path("logs")
    writer: tuple[PreTrainedModel, Codec] | None = None

    def __post_init__(self) -> None:
        self.learnable = {name for name, p in self.student.named_parameters() if p.requires_grad}

    def read(self, batch: Batch) -> Batch:
        """The batch, with what the teacher reads if that is something else."""
        return batch if self.translate is None else self.translate(batch)

    def distiller(self, stage: Stage, few: Batch) -> Distiller:
        """Student and terms of a stage; the terms' own parameters are drawn from the seed and the stage's place.

        Args:
            stage: one of the job's.
            few: some samples, which show the shapes of the layers that are compared.
        """
        terms = cast(Sequence[Objective], stage.terms)
        pairs = find_pairs(self.student, getattr(self.teacher, "model", None), terms, few)
        torch.manual_seed(self.seed + 7919 * [each.stage for each in self.stages].index(stage))
        return Distiller(self.student, terms, self.shared, pairs).to(few.labels.device)
