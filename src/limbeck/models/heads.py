"""What a model says about a batch: hidden states and head for a language model, logits for a classifier."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from limbeck.core.errors import ModelError
from limbeck.core.types import IGNORE, Batch, Dense, Dist, Head, Needs, Signal
from limbeck.models.packed import check_packed
from limbeck.models.taps import Taps

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def signal(model: PreTrainedModel, batch: Batch, needs: Needs) -> Signal:
    """Run a model and give what is asked for: its distribution, and what its layers hold.

    A language model's logits [B, T, V] are never made: its `Head` holds hidden states [B, T, D] and the
    output matrix [V, D], for a driver that multiplies them piece by piece.
    """
    if not needs:
        return Signal()
    with Taps(model, needs.features) as taps:
        dist = _distribution(model, _in_type(batch, model.dtype))
    return Signal(dist if needs.dist else None, taps.features())


def _distribution(model: PreTrainedModel, batch: Batch) -> Dist:
    head = model.get_output_embeddings()
    if head is None:
        return Dense(model(**batch.inputs).logits)
    hidden = model.get_decoder()(**batch.inputs, use_cache=False).last_hidden_state
    return _head(cast(nn.Linear, head), hidden)


def _head(linear: nn.Linear, hidden: Tensor) -> Head:
    """What the head multiplies: rounded where it is while it learns, see `models.quantize`."""
    rounded = [getattr(linear, f"{name}_fake_quantizer", None) for name in ("activation", "weight")]
    given, weight = (x if by is None else by(x) for x, by in zip((hidden, linear.weight), rounded, strict=True))
    return Head(given, weight, linear.bias)


def _in_type(batch: Batch, dtype: torch.dtype) -> Batch:
    """Pixels and waveforms in the model's own precision; token ids stay what they are."""
    if not any(x.is_floating_point() and x.dtype != dtype for x in batch.inputs.values()):
        return batch
    inputs = {k: x.to(dtype) if x.is_floating_point() else x for k, x in batch.inputs.items()}
    return replace(batch, inputs=inputs)


_LARGE = 100.0
"""Larger than any cap on logits in use (Gemma's is 30)."""


@torch.no_grad()
def check_head(model: PreTrainedModel, batch: Batch, name: str) -> None:
    """Make sure that hidden states times head really are the model's logits.

    Some architectures scale or cap their logits after the head; distilling from the bare product would
    then teach something else than the model says. What the head gives is blown up to `_LARGE` for the
    comparison: the small logits of a model that is not yet trained would pass under a cap unchanged.

    If the batch is packed, the model must keep its samples apart, see `check_packed`.

    Raises:
        ModelError: they differ, or the model cannot read packed rows.
    """
    if model.get_output_embeddings() is None:
        return
    if batch.packed is not None:
        check_packed(model, name)
    training = model.training
    model.eval()
    few = {k: v[:1] for k, v in _in_type(batch, model.dtype).inputs.items()}
    small = Batch(batch.ids[:1], few, batch.labels[:1])
    head = cast(Head, signal(model, small, Needs(dist=True)).dist)
    ours = nn.functional.linear(head.hidden.to(head.weight.dtype), head.weight, head.bias).float()
    factor = _LARGE / ours.abs().max().clamp(min=1e-6)
    hook = model.get_output_embeddings().register_forward_hook(lambda module, given, logits: logits * factor)
    try:
        theirs = model(**few, use_cache=False).logits.float()
    finally:
        hook.remove()
        model.train(training)
    ours, seen = ours * factor, small.labels != IGNORE
    tolerance = 1e-4 if head.weight.dtype == torch.float32 else 2e-2
    alike = ours.shape == theirs.shape
    if not alike or not torch.allclose(ours[seen], theirs[seen], rtol=tolerance, atol=tolerance * 10):
        raise ModelError(
            f"{name} ({type(model).__name__}) changes its logits after the head (scale, cap or bias)",
            got=f"largest difference {(ours - theirs).abs().max():.2e} of {_LARGE:.0f}" if alike else "other shapes",
            allowed="architectures whose logits are hidden states times the output matrix",
        )
