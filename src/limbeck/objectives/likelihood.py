"""How likely a model holds each label, with gradients and without tokens x vocabulary.

Shapes: N rows (valid labels), V vocabulary, D hidden width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from limbeck.core.types import IGNORE, Dense, Dist, Head

CHUNK_BYTES = 32 * 2**20


def label_log_probs(dist: Dist, labels: Tensor) -> Tensor:
    """The log-probability of every valid label, [N], in at least float32.

    Its gradients are given from outside, so they cannot be taken in the forward pass as the fused pass does: the
    logits are made twice, a chunk at a time.

    Args:
        dist: logits [..., V], or hidden states [..., D] with their head.
        labels: [...], `IGNORE` where there is none.
    """
    keep = labels.flatten() != IGNORE
    labels_N = labels.flatten()[keep]
    if isinstance(dist, Dense):
        logits_NV = dist.logits.flatten(0, -2)[keep]
        exact = logits_NV if logits_NV.dtype == torch.float64 else logits_NV.float()
        return exact.log_softmax(-1).gather(1, labels_N[:, None]).squeeze(1)
    assert isinstance(dist, Head), "likelihoods are read of models that run here"
    return _LabelLogProbs.apply(dist.hidden.flatten(0, -2)[keep], dist.weight, dist.bias, labels_N)


class _LabelLogProbs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, bias_V: Tensor | None, labels_N: Tensor) -> Tensor:
        ctx.save_for_backward(hidden_ND, weight_VD, bias_V, labels_N)
        ctx.work = _work_type(hidden_ND)
        exact = torch.float64 if hidden_ND.dtype == torch.float64 else torch.float32
        found = hidden_ND.new_empty(len(hidden_ND), dtype=exact)
        with torch.autocast(hidden_ND.device.type, enabled=False):
            for rows in _chunks(hidden_ND, weight_VD):
                logits_NV = _logits(hidden_ND[rows], weight_VD, bias_V, ctx.work).to(exact)
                chosen_N = logits_NV.gather(1, labels_N[rows, None]).squeeze(1)
                found[rows] = chosen_N - logits_NV.logsumexp(1)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slopes_N: Tensor) -> tuple[Tensor | None, ...]:
        hidden_ND, weight_VD, bias_V, labels_N = ctx.saved_tensors
        exact = slopes_N.dtype
        for_hidden = torch.empty_like(hidden_ND) if ctx.needs_input_grad[0] else None
        for_weight = torch.zeros_like(weight_VD, dtype=exact) if ctx.needs_input_grad[1] else None
        for_bias = torch.zeros_like(bias_V, dtype=exact) if bias_V is not None and ctx.needs_input_grad[2] else None
        with torch.autocast(hidden_ND.device.type, enabled=False):
            for rows in _chunks(hidden_ND, weight_VD):
                logits_NV = _logits(hidden_ND[rows], weight_VD, bias_V, ctx.work).to(exact)
                dlogits_NV = logits_NV.softmax(1).neg_()
                here_N = labels_N[rows, None]
                dlogits_NV.scatter_add_(1, here_N, torch.ones_like(here_N, dtype=exact))
                dlogits_NV *= slopes_N[rows, None]
                if for_bias is not None:
                    for_bias += dlogits_NV.sum(0)
                dlogits_NV = dlogits_NV.to(ctx.work)
                if for_hidden is not None:
                    for_hidden[rows] = (dlogits_NV @ weight_VD.to(ctx.work)).to(for_hidden.dtype)
                if for_weight is not None:
                    for_weight += dlogits_NV.T @ hidden_ND[rows].to(ctx.work)
        return (
            for_hidden,
            None if for_weight is None else for_weight.to(weight_VD.dtype),
            None if for_bias is None or bias_V is None else for_bias.to(bias_V.dtype),
            None,
        )


def _work_type(hidden_ND: Tensor) -> torch.dtype:
    device = hidden_ND.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden_ND.dtype


def _chunks(hidden_ND: Tensor, weight_VD: Tensor) -> list[slice]:
    size = max(1, CHUNK_BYTES // (4 * len(weight_VD)))
    return [slice(start, start + size) for start in range(0, len(hidden_ND), size)]


def _logits(part_ND: Tensor, weight_VD: Tensor, bias_V: Tensor | None, work: torch.dtype) -> Tensor:
    bias = None if bias_V is None else bias_V.to(work)
    return torch.nn.functional.linear(part_ND.to(work), weight_VD.to(work), bias)
