"""A teacher that runs here: any model that limbeck can load."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from limbeck.core.types import Batch, Needs, Signal
from limbeck.models.heads import signal

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class LocalTeacher:
    """A frozen model in evaluation mode and in its own precision.

    Args:
        model: the model; it is frozen and moved.
        device: where it runs.
    """

    provides = Needs(dist=True)

    def __init__(self, model: PreTrainedModel, device: Any = "cpu"):
        self.model = model.to(device).eval().requires_grad_(False)

    @torch.no_grad()
    def signal(self, batch: Batch, needs: Needs) -> Signal:
        """What the teacher says of a batch. Never under autocast: a teacher's precision is its own."""
        device = next(self.model.parameters()).device.type
        with torch.autocast(device, enabled=False):
            return signal(self.model, batch, needs)
