"""How large a model is, and how much it calculates."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from limbeck.core.types import Batch, Head, Needs
from limbeck.evaluation.served import ServedModel
from limbeck.models.heads import signal
from limbeck.models.load import weight_files
from limbeck.teachers.ensemble import EnsembleModel

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from limbeck.evaluation.predict import Measured

_COUNTED = ("eager", "sdpa")
"""Implementations of attention that come down to products of matrices."""


def weight_bytes(model: torch.nn.Module) -> int:
    """Bytes of all weights in memory, tied ones once."""
    return sum(p.numel() * p.element_size() for p in model.parameters())


def stored_bytes(model: Measured) -> int | None:
    """Bytes of the files that a model's weights were read from, those of all its members; None: some have none."""
    if isinstance(model, ServedModel):
        return model.stored_bytes()
    members = model.models if isinstance(model, EnsembleModel) else [model]
    files = [weight_files(cast("PreTrainedModel", member)) for member in members]
    return sum(file.stat().st_size for each in files for file in each) if all(files) else None


def flops(model: PreTrainedModel | EnsembleModel, batch: Batch) -> int:
    """Floating-point operations of one pass, the output matrix of a language model at every position included.

    Products of matrices and convolutions are counted, a multiplication and an addition as two. Attention is taken
    apart into products for this: PyTorch does not count its fused form on a CPU. What a causal mask hides counts too.
    """
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        if isinstance(model, EnsembleModel):
            model(batch)
        else:
            dist = signal(model, batch, Needs(dist=True)).dist
            if isinstance(dist, Head):
                torch.nn.functional.linear(dist.hidden.to(dist.weight.dtype), dist.weight, dist.bias)
    return int(counter.get_total_flops())


def uncounted(model: torch.nn.Module) -> list[str]:
    """Implementations of attention in a model whose operations `flops` does not see."""
    parts = model.models if isinstance(model, EnsembleModel) else [model]
    names = {getattr(part.config, "_attn_implementation", None) or "eager" for part in parts}
    return sorted(str(name) for name in names if name not in _COUNTED)
