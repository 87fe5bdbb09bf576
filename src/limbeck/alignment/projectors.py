"""Projectors: trained maps from the student's width to the teacher's. They stay behind when the student is exported.

Shapes: D and E widths of student and teacher, C channels, H height, W width.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn.functional import linear

from limbeck.core.errors import RecipeError

ProjectorKind = Literal["auto", "linear", "conv", "none"]
"""`auto`: none where the widths are equal, else what fits the layers' form."""


class LinearProjector(nn.Linear):
    """A linear map of the last dimension, computed in the precision of what it is given.

    Its weights come from torch's global random numbers, like those of every layer.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Rows [..., D] as rows [..., E]."""
        bias = None if self.bias is None else self.bias.to(input.dtype)
        return linear(input, self.weight.to(input.dtype), bias)


class ConvProjector(nn.Conv2d):
    """A convolution of a map [B, C, H, W], computed in the precision of what it is given."""

    def forward(self, input: Tensor) -> Tensor:
        """A map [B, C, H, W] with other channels, and smaller where the kernel is larger than 1."""
        bias = None if self.bias is None else self.bias.to(input.dtype)
        return self._conv_forward(input, self.weight.to(input.dtype), bias)


def make_projector(kind: ProjectorKind, student: int, teacher: int, *, is_map: bool, where: str) -> nn.Module:
    """What stands between two layers: a linear map, a 1x1 convolution, or nothing.

    Args:
        kind: what the recipe asks for.
        student: the student's width D or channels C.
        teacher: the teacher's.
        is_map: whether the layers are maps [B, C, H, W] rather than rows [..., D].
        where: names both layers and their shapes, for the message.

    Returns:
        A module with parameters, or `nn.Identity`.

    Raises:
        RecipeError: the kind does not fit the layers.
    """
    fitting: ProjectorKind = "conv" if is_map else "linear"
    if kind == "auto":
        kind = "none" if student == teacher else fitting
    if kind == "none":
        if student != teacher:
            raise RecipeError("layers of different widths need a projector", got=where, fix=f"projector: {fitting}")
        return nn.Identity()
    if kind != fitting:
        form = "maps [B, C, H, W]" if is_map else "rows [..., D]"
        raise RecipeError(f"a projector '{kind}' does not fit {form}", got=where, fix=f"projector: {fitting}")
    return ConvProjector(student, teacher, 1) if is_map else LinearProjector(student, teacher)


def describe(projector: nn.Module) -> str:
    """A projector in a few words: `none`, `linear 128 -> 384`, `conv 1x1 64 -> 128`."""
    if isinstance(projector, nn.Conv2d):
        kernel = "x".join(str(n) for n in projector.kernel_size)
        return f"conv {kernel} {projector.in_channels} -> {projector.out_channels}"
    if isinstance(projector, nn.Linear):
        return f"linear {projector.in_features} -> {projector.out_features}"
    return "none"
