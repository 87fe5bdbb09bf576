"""The student's loss on each training row, as it is when a stage begins: what a curriculum may go by.

Shapes: N rows, B samples of a batch, T positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from limbeck.core.errors import TrainingError
from limbeck.core.types import IGNORE, Batch, Dist, Head, Needs
from limbeck.models.heads import signal
from limbeck.tasks import Codec, Feature
from limbeck.teachers.gated import difficulty

if TYPE_CHECKING:
    from accelerate import Accelerator
    from transformers import PreTrainedModel


@torch.no_grad()
def row_losses(
    accelerator: Accelerator, model: PreTrainedModel, codec: Codec, features: Sequence[Feature], batch_size: int
) -> list[float]:
    """The cross-entropy of each row, a mean over its labels, without dropout and augmentation; five digits of it.

    Which rows share a batch does not hang on the number of processes.

    Args:
        accelerator: the engine; its processes share the batches, and all of them learn all losses.
        model: bare; it is left in evaluation mode.
        codec: makes batches.
        features: the training rows.
        batch_size: rows in one forward pass; rows of like length go together.

    Raises:
        TrainingError: a loss is not finite.
    """
    model.eval()
    longest_first = sorted(range(len(features)), key=lambda i: -features[i].length)
    batches = [longest_first[i : i + batch_size] for i in range(0, len(features), batch_size)]
    losses_N = torch.zeros(len(features), device=accelerator.device)
    for places in batches[accelerator.process_index :: accelerator.num_processes]:
        batch = codec.collate([features[i] for i in places]).to(accelerator.device)
        with accelerator.autocast():
            dist = signal(model, batch, Needs(dist=True)).dist
        assert dist is not None
        losses_N[places] = difficulty(*_one_a_row(dist, batch), "loss")
    # Five digits: the last bits hang on the batch and the machine, and would make a ranking of equal losses.
    found = [float(f"{loss:.5g}") for loss in accelerator.reduce(losses_N, "sum").tolist()]
    if lost := [(f.id, loss) for f, loss in zip(features, found, strict=True) if not abs(loss) < float("inf")]:
        what = f"the student's loss is not finite on {len(lost)} of {len(found)} training rows"
        raise TrainingError(what, got=f"{lost[0][1]} on {lost[0][0]}", fix="training.precision=fp32")
    return found


def _one_a_row(dist: Dist, batch: Batch) -> tuple[Dist, Tensor]:
    """What is said of each sample, and its labels, [B, T, ...]; packed ones are taken apart."""
    if batch.packed is None:
        return dist, batch.labels
    assert isinstance(dist, Head), "only language models are packed"
    hidden = [dist.hidden[row, start:end] for row, start, end in batch.packed]
    labels = [batch.labels[row, start:end] for row, start, end in batch.packed]
    apart = Head(pad_sequence(hidden, batch_first=True), dist.weight, dist.bias)
    return apart, pad_sequence(labels, batch_first=True, padding_value=IGNORE)
