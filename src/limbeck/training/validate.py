"""Scores on the validation rows while training: what checkpoints are chosen by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from limbeck.core.types import IGNORE, Dense, Needs
from limbeck.models.heads import signal
from limbeck.objectives import distribution_loss
from limbeck.objectives.distribution.cross_entropy import CrossEntropy
from limbeck.tasks import Codec, Feature

if TYPE_CHECKING:
    from accelerate import Accelerator
    from transformers import PreTrainedModel


@torch.no_grad()
def validate(
    accelerator: Accelerator, model: PreTrainedModel, codec: Codec, features: Sequence[Feature], batch_size: int
) -> dict[str, float]:
    """Cross-entropy per unit, and for classifiers accuracy, over all rows and processes.

    Args:
        accelerator: the engine; its processes share the rows.
        model: bare; it is left in evaluation mode.
        codec: makes batches.
        features: the validation rows.
        batch_size: rows in one forward pass.
    """
    model.eval()
    if accelerator.num_processes > 1:  # running statistics of batch norm differ by process; the first one's are saved
        for buffer in model.buffers():
            torch.distributed.broadcast(buffer, 0)
    ordered = sorted(features, key=lambda f: -f.length)
    mine = ordered[accelerator.process_index :: accelerator.num_processes]
    sums = torch.zeros(3, dtype=torch.float64, device=accelerator.device)  # loss, units, correct
    classifier = model.get_output_embeddings() is None  # not by its rows: a process may have none
    for start in range(0, len(mine), batch_size):
        batch = codec.collate(mine[start : start + batch_size]).to(accelerator.device)
        with accelerator.autocast():
            dist = signal(model, batch, Needs(dist=True)).dist
            assert dist is not None
            loss, _ = distribution_loss(dist, None, batch.labels, [CrossEntropy()], [1.0])
        sums[0] += loss
        sums[1] += (batch.labels != IGNORE).sum()
        if isinstance(dist, Dense):
            sums[2] += (dist.logits.argmax(-1) == batch.labels).sum()
    sums = accelerator.reduce(sums, "sum")
    found = {"loss": float(sums[0] / sums[1])}
    return {**found, "accuracy": float(sums[2] / sums[1])} if classifier else found


def better(new: dict[str, float], old: dict[str, Any] | None) -> bool:
    """Whether metrics beat the best so far: by accuracy where there is one, then by loss."""
    if old is None:
        return True
    return (new.get("accuracy", 0.0), -new["loss"]) > (old.get("accuracy", 0.0), -old["loss"])
