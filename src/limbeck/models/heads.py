"""What a model says about a batch: hidden states and head for a language model, logits for a classifier."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import nn

from limbeck.core.errors import ModelError
from limbeck.core.types import IGNORE, Batch, Dense, Head, Needs, Signal

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def signal(model: PreTrainedModel, batch: Batch, needs: Needs) -> Signal:
    """Run a model and give what is asked for.

    A language model's logits [B, T, V] are never made: its `Head` holds hidden states [B, T, D] and the
    output matrix [V, D], for a driver that multiplies them piece by piece.
    """
    if not needs.dist:
        return Signal()
    head = model.get_output_embeddings()
    if head is None:
        return Signal(dist=Dense(model(**batch.inputs).logits))
    hidden = model.get_decoder()(**batch.inputs, use_cache=False).last_hidden_state
    linear = cast(nn.Linear, head)
    return Signal(dist=Head(hidden, linear.weight, linear.bias))


@torch.no_grad()
def check_head(model: PreTrainedModel, batch: Batch, name: str) -> None:
    """Make sure that hidden states times head really are the model's logits.

    Some architectures scale or cap their logits after the head; distilling from the bare product would
    then teach something else than the model says.

    Raises:
        ModelError: they differ.
    """
    if model.get_output_embeddings() is None:
        return
    training = model.training
    model.eval()
    few = {k: v[:1] for k, v in batch.inputs.items()}
    small = Batch(batch.ids[:1], few, batch.labels[:1])
    head = cast(Head, signal(model, small, Needs(dist=True)).dist)
    ours = nn.functional.linear(head.hidden.to(head.weight.dtype), head.weight, head.bias).float()
    theirs = model(**few, use_cache=False).logits.float()
    model.train(training)
    seen = small.labels != IGNORE
    tolerance = 1e-4 if head.weight.dtype == torch.float32 else 2e-2
    if ours.shape != theirs.shape or not torch.allclose(ours[seen], theirs[seen], rtol=tolerance, atol=tolerance * 10):
        raise ModelError(
            f"{name} ({type(model).__name__}) changes its logits after the head (scale, cap or bias)",
            got=f"largest difference {(ours - theirs).abs().max():.2e}" if ours.shape == theirs.shape else "other shapes",
            allowed="architectures whose logits are hidden states times the output matrix",
        )
