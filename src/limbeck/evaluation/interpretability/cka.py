"""How alike two models' layers see the same samples: every layer of one with every layer of the other.

A sample counts once, as the mean of what a layer holds at its real positions; so models with other tokenizers, other
patches or other widths can be compared.

Shapes: B rows, T positions, D width, C channels, H and W height and width, n samples.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from limbeck.alignment.cka import cka_map


def pooled(held: Tensor, real_BT: Tensor | None) -> Tensor:
    """What a layer holds of each sample, [B, D], in float64 on the CPU.

    Args:
        held: the layer's output: [B, T, D], or [B, C, H, W] of a convolution, or [B, D].
        real_BT: which positions are no padding; None: all.
    """
    held = held.double()
    if held.ndim == 3 and real_BT is not None:
        counts_B1 = real_BT.sum(1, keepdim=True)
        return (held.masked_fill(~real_BT[..., None], 0).sum(1) / counts_B1).cpu()
    return (held.mean((2, 3)) if held.ndim == 4 else held.mean(1) if held.ndim == 3 else held).cpu()


class HeatMap:
    """Unbiased linear CKA of layers with layers, of samples that come a batch at a time.

    Kept are n x D numbers a layer, whatever the number of tokens. The value is that of all samples at once, and not
    a mean over batches.
    """

    def __init__(self) -> None:
        self._kept: tuple[list[list[Tensor]], list[list[Tensor]]] = ([], [])

    def update(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> None:
        """Take in a batch: by layer, `pooled` outputs of the same samples."""
        for kept, new in zip(self._kept, (student, teacher), strict=True):
            kept.append(list(new))

    def value(self) -> Tensor:
        """CKA, [student's layers, teacher's layers], in float64.

        Raises:
            DataError: there are too few samples.
        """
        student, teacher = ([torch.cat(parts) for parts in zip(*kept, strict=True)] for kept in self._kept)
        return cka_map(student, teacher)
