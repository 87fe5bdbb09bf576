"""What a layer holds of each sample, in one vector.

A sample counts once, as the mean of what a layer holds at its real positions; so models with other tokenizers, other
patches or other widths can be compared.

Shapes: B rows, T positions, D width, C channels, H and W height and width.
"""

from __future__ import annotations

from torch import Tensor

from limbeck.core.errors import ModelError


def pooled(held: Tensor, real_BT: Tensor | None) -> Tensor:
    """What a layer holds of each sample, [B, D], in float64 on the CPU.

    Args:
        held: the layer's output: [B, T, D], or [B, C, H, W] of a convolution, or [B, D].
        real_BT: which positions are no padding; None: all.

    Raises:
        ModelError: the layer has other positions than the rows.
    """
    held = held.double()
    if held.ndim != 3 or real_BT is None:
        return (held.flatten(2).mean(2) if held.ndim == 4 else held.mean(1) if held.ndim == 3 else held).cpu()
    if held.shape[:2] != real_BT.shape:
        raise ModelError(
            "its layers hold other positions than the rows have",
            got=f"{held.shape[1]} positions of rows of {real_BT.shape[1]} tokens",
        )
    return (held.masked_fill(~real_BT[..., None], 0).sum(1) / real_BT.sum(1, keepdim=True)).cpu()
