"""A model that computes as if its weights were small integers, while it learns in float32.

    w~ = s * (clamp(round(w / s) + z, low, high) - z),   dw~/dw = 1 where nothing is clamped ("straight through")

    | what                       | scale s from                  | low, high  | z         | who rounds alike         |
    | int8 linear, convolution   | largest |w| of a row / 127    | -127, 127  | 0         | ONNX Runtime             |
    | int8 embedding             | range of the table / 255      | 0, 255     | from s    | ONNX Runtime             |
    | int4 linear                | largest of a group, w / -8    | -8, 7      | 0         | ONNX Runtime, GGUF Q4_0  |
    | int8 activation            | range of the batch / 255      | 0, 255     | from s    | ONNX Runtime, dynamic    |

All of these give themselves back: what lies on the grid has the same scale again, so `settle` and a quantizer after it
agree. The layers with rounding, and the rounding itself, are torchao's; its own scales (largest |w| / 127.5, / 7.5)
are not used, because what they round is rounded differently the second time. A prepared model has the same parameters
by the same names, so that optimizer, checkpoints and wrappers see no difference.

R rows that share a scale, C weights of such a row.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from limbeck.core.errors import MissingExtra, ModelError, RecipeError
from limbeck.core.patterns import named
from limbeck.core.recipe.smaller import GROUP, Quantize

try:
    from torchao.quantization import PerAxis, quantize_
    from torchao.quantization.qat import IntxFakeQuantizeConfig, IntxFakeQuantizer, QATConfig
except ImportError as error:
    raise MissingExtra("quantization-aware training", "qat") from error


class Grid(IntxFakeQuantizer):
    """Rounds a tensor to the integers of a grid whose scales follow the tensor itself.

    Args:
        block: what shares a scale: the tensor, a channel (its first axis), or so many numbers of a row.
    """

    dtype: torch.dtype
    symmetric = True

    def __init__(self, block: Literal["tensor", "channel"] | int):
        # Not dynamic: the scales are set here, torchao rounds by them.
        super().__init__(IntxFakeQuantizeConfig(self.dtype, PerAxis(0), is_symmetric=self.symmetric, is_dynamic=False))
        self.block = block

    @abstractmethod
    def ranges(self, rows_RC: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and zero point of each row, [R, 1]."""

    def forward(self, x: Tensor) -> Tensor:
        """The tensor rounded; gradients pass through."""
        if isinstance(self.block, int):
            rows_RC = x.reshape(-1, self.block)
        else:
            rows_RC = x.flatten(1) if self.block == "channel" else x.reshape(1, -1)
        if rows_RC.shape[1] == 1:  # a number alone is its own grid
            return x
        with torch.no_grad():
            scale_R1, self.zero_point = self.ranges(rows_RC.float())
            self.scale = scale_R1.where(scale_R1 != 0, 1.0)
        return super().forward(rows_RC).view_as(x)


class Int8(Grid):
    """Signed bytes without -128, the largest number of a row at its end."""

    dtype = torch.int8

    def ranges(self, rows_RC: Tensor) -> tuple[Tensor, Tensor]:
        largest = rows_RC.abs().amax(1, keepdim=True)
        return largest / 127, torch.zeros_like(largest, dtype=torch.int32)


class Int4(Grid):
    """Four bits, the largest number of a row at -8; the scale has the sign for that."""

    dtype = torch.int4  # type: ignore[attr-defined]

    def ranges(self, rows_RC: Tensor) -> tuple[Tensor, Tensor]:
        largest = rows_RC.gather(1, rows_RC.abs().argmax(1, keepdim=True))
        return largest / -8, torch.zeros_like(largest, dtype=torch.int32)


class Byte(Grid):
    """Unsigned bytes over the range of the numbers, zero among them."""

    dtype = torch.uint8
    symmetric = False

    def ranges(self, rows_RC: Tensor) -> tuple[Tensor, Tensor]:
        low, high = rows_RC.amin(1, keepdim=True).clamp(max=0), rows_RC.amax(1, keepdim=True).clamp(min=0)
        scale = (high - low) / 255
        return scale, (-low / scale.where(scale != 0, 1.0)).round().to(torch.int32)


class _RoundedConv:
    """A convolution with rounded weights; torchao has none."""

    weight_fake_quantizer: Grid

    def forward(self: Any, x: Tensor) -> Tensor:
        """The convolution."""
        return self._conv_forward(x, self.weight_fake_quantizer(self.weight), self.bias)


class RoundedConv1d(_RoundedConv, nn.Conv1d):
    """A convolution in time."""


class RoundedConv2d(_RoundedConv, nn.Conv2d):
    """A convolution in space."""


_CONVS: Mapping[type, type] = {nn.Conv1d: RoundedConv1d, nn.Conv2d: RoundedConv2d}
_PLAIN: Mapping[type, type] = {rounded: plain for plain, rounded in _CONVS.items()}


def quantizable(model: nn.Module, plan: Quantize) -> dict[str, nn.Module]:
    """The layers that a plan rounds, by name.

    Raises:
        RecipeError: `keep` names none, the groups do not divide a layer's rows, or one scale for a layer would be lost.
        ModelError: there are none, or weights of a layer that is not known would be left out.
    """
    kinds: tuple[type, ...] = (nn.Linear, nn.Embedding, *_CONVS) if plan.weights == "int8" else (nn.Linear,)
    modules = dict(model.named_modules())
    found = {name: module for name, module in modules.items() if type(module) in kinds}
    tied = {id(module.weight) for module in found.values() if type(module) is nn.Linear}
    found |= {n: m for n, m in modules.items() if type(m) is nn.Embedding and id(m.weight) in tied}
    others = {name: modules[name] for name in _weighted(model) if name not in found and not _stays(modules[name], plan)}
    left = named(plan.keep, [*found, *others], "quantize.keep")
    weights = {id(found[name].weight) for name in left & found.keys()}  # a table and the head that is tied to it
    found = {name: module for name, module in found.items() if id(module.weight) not in weights}
    if unknown := [name for name in others if name not in left]:
        raise ModelError(
            f"{type(model).__name__} has layers that this does not know how to round to {plan.weights}",
            got=", ".join(f"{name} ({type(modules[name]).__name__})" for name in unknown[:4]),
            allowed=", ".join(kind.__name__ for kind in kinds) + ", and no classes derived from them",
            fix=f"quantize.keep=['{unknown[0]}'{', ...' if len(unknown) > 1 else ''}] leaves them as they are",
        )
    if not found:
        raise ModelError(f"no layer of {type(model).__name__} can be rounded to {plan.weights}")
    _refuse_sizes(model, found, plan)
    return found


def _weighted(model: nn.Module) -> list[str]:
    """Modules with a weight of their own that is a matrix or more; what begins with a 1 is added to each row alike."""
    return [
        name
        for name, module in model.named_modules()
        if any(p.ndim > 1 and len(p) > 1 for p in module.parameters(recurse=False))
    ]


def _stays(module: nn.Module, plan: Quantize) -> bool:
    """Whether a plan leaves such layers as they are: with four bits, all but products."""
    return plan.weights == "int4" and isinstance(module, nn.Embedding | nn.modules.conv._ConvNd)


def _refuse_sizes(model: nn.Module, found: Mapping[str, Any], plan: Quantize) -> None:
    """Refuse what has no scale that a quantizer finds again."""
    group = _group(plan)
    for name, module in found.items():
        row = module.weight[0].numel()
        if isinstance(group, int) and row % group and not isinstance(module, nn.Embedding):
            raise RecipeError(
                "quantize.group_size does not divide the rows of a layer",
                got=f"{group}; {name} has rows of {row}",
                fix=f"another group_size, or quantize.keep=['{name}']",
            )
    norms = [name for name, m in model.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    convs = [name for name, module in found.items() if type(module) in _CONVS]
    if group == "tensor" and norms and convs:
        raise RecipeError(
            "a norm becomes a factor for each channel of the convolution before it, so that one scale for all is lost",
            got=f"quantize.per_channel=false, {convs[0]}, {norms[0]}",
            fix="quantize.per_channel=true",
        )


def prepare(model: nn.Module, plan: Quantize) -> None:
    """Make the layers of a model round their weights, and what goes into them if the plan says so.

    Parameters stay the same objects by the same names.

    Args:
        model: changed in place; `settle` makes it plain again.
        plan: what is rounded to what.
    """
    found = quantizable(model, plan)
    tied = {id(module.weight) for module in found.values() if isinstance(module, nn.Linear)}
    base = QATConfig(weight_config=IntxFakeQuantizeConfig(torch.int8, PerAxis(0)), step="prepare")
    quantize_(model, base, filter_fn=lambda module, name: name in found and type(module) not in _CONVS)
    for name, module in found.items():
        if type(module) in _CONVS:
            _put(model, name, _conv(module, _CONVS[type(module)]))
    modules = dict(model.named_modules())
    for name in found:
        table = isinstance(modules[name], nn.Embedding) and id(modules[name].weight) not in tied
        kind = Byte if table else Int8 if plan.weights == "int8" else Int4
        modules[name].weight_fake_quantizer = kind("tensor" if table else _group(plan))
        if plan.activations is not None and isinstance(modules[name], nn.Linear):
            modules[name].activation_fake_quantizer = Byte("tensor")


@torch.no_grad()
def settle(model: nn.Module) -> list[str]:
    """Put the weights of a prepared model on their grids for good and make its layers plain again.

    Returns:
        The layers whose weights are now on a grid.
    """
    rounded = {
        name: module
        for name, module in model.named_modules()
        if isinstance(getattr(module, "weight_fake_quantizer", None), Grid)
    }
    done: set[int] = set()
    for module in rounded.values():
        if id(module.weight) not in done:  # a table and the head that is tied to it
            module.weight.copy_(module.weight_fake_quantizer(module.weight))
        done.add(id(module.weight))
    quantize_(
        model, QATConfig(step="convert"), filter_fn=lambda module, name: name in rounded and type(module) not in _PLAIN
    )
    for name, module in rounded.items():
        if type(module) in _PLAIN:
            _put(model, name, _conv(module, _PLAIN[type(module)]))
    return list(rounded)


def _group(plan: Quantize) -> Literal["tensor", "channel"] | int:
    """What shares a scale."""
    if plan.group_size is not None or plan.weights == "int4":
        return plan.group_size or GROUP
    return "channel" if plan.per_channel else "tensor"


def _put(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(model.get_submodule(parent), own, module)


def _conv(old: Any, kind: Any) -> nn.Module:
    """The same convolution of another class, with the same parameters."""
    sizes = (old.in_channels, old.out_channels, old.kernel_size, old.stride, old.padding, old.dilation, old.groups)
    new = kind(*sizes, old.bias is not None, old.padding_mode, device="meta")
    new.weight, new.bias = old.weight, old.bias
    return new.train(old.training)
