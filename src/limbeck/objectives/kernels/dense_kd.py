"""Cross-entropy and forward KL of a chunk in one kernel: logits are read twice and overwritten once by the gradient.

What it does not know (other terms, label smoothing, a temperature for each row, shared classes that are not the first
ones) goes through the pass in PyTorch.

Shapes: N rows, V classes.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from limbeck.objectives.base import DistributionTerm
from limbeck.objectives.chunk import LOWEST, Chunk

BLOCK = 4096
"""Classes that a program holds at a time."""


@dataclass(frozen=True)
class Plan:
    """Which terms the kernel evaluates for a chunk.

    Attributes:
        hard: the place of cross-entropy among the terms; None where it is not asked for.
        soft: the place of the KL.
        temperature: of the KL.
    """

    hard: int | None
    soft: int
    temperature: float


def plan(terms: Sequence[DistributionTerm], chunk: Chunk) -> Plan | None:
    """What the kernel can do of these terms; None if it is not all of them."""
    types = [term.type() for term in terms]
    plain = chunk.prefix and chunk.teacher_NU is not None and not chunk.learned and chunk.other_labels_N is None
    if not (plain and usable(chunk.logits_NV.device)) or sorted(types) not in (["kl"], ["cross_entropy", "kl"]):
        return None
    if chunk.logits_NV.dtype == torch.float64 or any(getattr(term, "label_smoothing", 0) for term in terms):
        return None
    soft = types.index("kl")
    temperature = terms[soft].temperature.at(chunk, terms[soft].label)  # type: ignore[attr-defined]
    if not isinstance(temperature, float | int):
        return None
    return Plan(types.index("cross_entropy") if len(types) == 2 else None, soft, float(temperature))


def usable(device: torch.device) -> bool:
    """Whether kernels run there: on CUDA with triton, or anywhere in triton's interpreter."""
    there = device.type == "cuda" or os.environ.get("TRITON_INTERPRET") == "1"
    return there and importlib.util.find_spec("triton") is not None


def evaluate(
    chunk: Chunk, hard_scale_N: Tensor, soft_scale_N: Tensor, temperature: float, *, write: bool
) -> tuple[Tensor, Tensor]:
    """Values of cross-entropy and of T^2 KL, each [N].

    Args:
        chunk: the rows; with `write`, its logits are overwritten by the gradient.
        hard_scale_N: what each row's gradient of the cross-entropy is multiplied by.
        soft_scale_N: the same for T^2 KL.
        temperature: T.
        write: whether gradients are wanted.
    """
    logits_NV, told_NV = chunk.logits_NV, chunk.teacher_NU
    assert told_NV is not None
    hard_N, soft_N = (torch.empty_like(hard_scale_N) for _ in range(2))
    rows, classes = logits_NV.shape
    if rows:
        from limbeck.objectives.kernels.triton_dense_kd import kernel  # needs triton, which not all have

        kernel[(rows,)](
            logits_NV,
            told_NV,
            chunk.labels_N,
            hard_scale_N,
            soft_scale_N,
            hard_N,
            soft_N,
            logits_NV.stride(0),
            told_NV.stride(0),
            classes,
            classes if chunk.shared is None else len(chunk.shared),
            temperature,
            WRITE=write,
            BLOCK=BLOCK,
            LOWEST=LOWEST,
        )
    return hard_N, soft_N
