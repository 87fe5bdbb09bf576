"""A teacher that runs here: any model that limbeck can load, or the student's own past."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from limbeck.core.types import Batch, Head, Needs, Signal
from limbeck.models.heads import signal

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class LocalTeacher:
    """A frozen model in evaluation mode and in its own precision.

    Args:
        model: the model; it is frozen and moved.
        device: where it runs.
        rows: of a language model whose student has a trimmed vocabulary: the row of its output matrix that each of
            the student's rows was [V]. What it says is then said over these alone.
    """

    def __init__(self, model: PreTrainedModel, device: Any = "cpu", rows: Tensor | None = None):
        torch.nn.Module.to(model, device)
        self.model = model.eval().requires_grad_(False)
        self.head = _head(self.model, rows)

    @torch.no_grad()
    def signal(self, batch: Batch, needs: Needs) -> Signal:
        """What the teacher says of a batch, in its own tokens if it has other ones than the student.

        Never under autocast: a teacher's precision is its own.
        """
        device = next(self.model.parameters()).device.type
        with torch.autocast(device, enabled=False):
            told = signal(self.model, batch.teacher or batch, needs)
        return replace(told, dist=self.over_rows(told.dist.hidden)) if isinstance(told.dist, Head) else told

    def over_rows(self, hidden_BTD: Tensor) -> Head:
        """What hidden states say, over the rows that the student has."""
        assert self.head is not None, "a language model has a head"
        return Head(hidden_BTD, *self.head)

    def update(self, student: PreTrainedModel) -> None:
        """After a step of the student; a fixed teacher stays as it is."""


def _head(model: PreTrainedModel, rows: Tensor | None) -> tuple[Tensor, Tensor | None] | None:
    """Weight and bias of a language model's output matrix, or some rows of them; None for a classifier."""
    head: Any = model.get_output_embeddings()
    if head is None:
        return None
    bias = getattr(head, "bias", None)
    if rows is None:
        return head.weight, bias
    rows = rows.to(head.weight.device)
    return head.weight[rows].detach(), None if bias is None else bias[rows].detach()


class MovingTeacher(LocalTeacher):
    """The student's own past: an exponential moving average of its weights.

    theta_t <- decay theta_t + (1 - decay) theta_s after every step. Buffers (running statistics) are copied. In the
    first steps the decay is (1 + n) / (10 + n) where that is less, so that the random start is soon forgotten.

    Args:
        student: the model that learns; a copy of it begins to teach.
        decay: how slowly the teacher follows.
        device: where it runs.

    Reference:
        Tarvainen and Valpola, Mean teachers are better role models, 2017, arXiv:1703.01780.
    """

    def __init__(self, student: PreTrainedModel, decay: float, device: Any = "cpu"):
        super().__init__(copy.deepcopy(student), device)
        self.decay = decay
        self.model.register_buffer("ema_steps", torch.zeros((), dtype=torch.long, device=device))

    @torch.no_grad()
    def update(self, student: PreTrainedModel) -> None:
        """Move towards the student by one step."""
        steps = self.model.ema_steps
        steps += 1
        decay = min(self.decay, (1 + int(steps)) / (10 + int(steps)))
        mine = dict(self.model.named_parameters())
        theirs = dict(student.named_parameters())
        torch._foreach_lerp_(list(mine.values()), [theirs[name] for name in mine], 1 - decay)
        buffers = dict(student.named_buffers())
        for name, buffer in self.model.named_buffers():
            if name in buffers:
                buffer.copy_(buffers[name])
