"""What makes a student smaller while it learns: weights on the grid of integers, whole heads and units taken out."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from limbeck.core.parts import Part, config_of
from limbeck.core.recipe.section import Section

GROUP = 32
"""Weights of an int4 group: what ONNX Runtime and GGUF take of themselves."""


class Quantize(Section):
    """Learn as the integers that the weights will become: quantization-aware training.

    Forward passes see rounded weights, in training and in validation; gradients pass through the rounding as if it
    were not there. The student that is saved has float32 weights that lie on the grid, so that rounding them afterwards
    (`compress`, `export`) changes none.

    Reference:
        Jacob et al., Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference,
        2017, arXiv:1712.05877; Bengio et al., Estimating or Propagating Gradients Through Stochastic Neurons for
        Conditional Computation, 2013, arXiv:1308.3432 (straight through).
    """

    weights: Literal["int8", "int4"] = "int8"
    """`int8`: linear layers, convolutions and embedding tables, on ONNX Runtime's grids. `int4`: linear layers, in
    groups, on the grid that ONNX Runtime and GGUF's Q4_0 share."""
    activations: Literal["int8"] | None = None
    """Round what goes into linear layers too, to 8 bits with the range of each batch, as ONNX Runtime's dynamic mode
    does. Left out: it stays as it is."""
    group_size: Annotated[int, Field(ge=16)] | None = None
    """So many weights of a row share a scale. Left out: 32 for int4, the whole row for int8."""
    per_channel: bool = True
    """A scale for each output channel, rather than one for a whole layer."""
    keep: list[str] = []
    """Layers that are not rounded, by name, with `*`: `classifier`, `*.attention.*`. `compress.keep` must name them."""

    @model_validator(mode="after")
    def _one_size(self) -> Self:
        if not self.per_channel and (self.group_size is not None or self.weights == "int4"):
            raise ValueError("groups are parts of a channel, so `per_channel: false` is for int8 without `group_size`")
        return self


def refuse_other_grid(plan: Quantize, part: Part, in_blocks: bool) -> None:
    """Make sure that what a compressor rounds to is what the weights have learned to be.

    Args:
        plan: of the last stages.
        part: the recipe's compressor.
        in_blocks: whether the student is a language model, whose 8-bit integers share scales in blocks.

    Raises:
        ValueError: it rounds to other integers, or what has stayed floats.
    """
    its = config_of(part)
    if its["type"] not in ("int8", "int4"):
        return
    if plan.weights == its["type"] == "int8" and (its["mode"] or (in_blocks and "weight_only")) == "weight_only":
        raise ValueError(
            "the weights learn to be integers with a scale for a row or a layer, but `weight_only` has one for each "
            "block of 32; take compress.mode=dynamic, or leave `quantize` out: eight bits in blocks need none"
        )
    pairs: list[tuple[str, object, str, object]] = [("quantize.weights", plan.weights, "compress.type", its["type"])]
    if plan.weights == "int4":
        pairs.append(("quantize.group_size", plan.group_size or GROUP, "compress.group_size", its.get("group_size")))
    else:
        pairs.append(("quantize.group_size", plan.group_size or "a row", "compress", "a row"))
        pairs.append(("quantize.per_channel", plan.per_channel, "compress.per_channel", its.get("per_channel")))
    for ours, learned, theirs, rounded in pairs:
        if learned != rounded:
            what = "compress would round the weights to other integers than they learn to be"
            raise ValueError(f"{what}: {ours} is {learned}, {theirs} is {rounded}")
    if missing := [pattern for pattern in plan.keep if pattern not in its["keep"]]:
        raise ValueError(
            f"layers of `quantize.keep` do not learn to be integers: name {', '.join(missing)} in `compress.keep` too"
        )


class Prune(Section):
    """Take whole attention heads and units of MLPs out when the stage begins; then the stage teaches what is left.

    Every layer loses the same number, so that the student stays a plain model of its architecture with a smaller
    `num_attention_heads` or `intermediate_size`.

    Reference:
        Michel et al., Are Sixteen Heads Really Better than One?, 2019, arXiv:1905.10650.
    """

    heads: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of each layer's heads that goes; where queries are grouped, whole groups go."""
    mlp: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of each MLP's units that goes."""
    importance: Literal["taylor", "magnitude"] = "taylor"
    """What stays: that whose absence would change the stage's loss most, to first order, or the largest weights."""
    rows: Annotated[int, Field(gt=0)] = 256
    """Training rows on which `taylor` looks: the stage's first."""

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.heads and not self.mlp:
            raise ValueError("`prune` takes nothing out: give `heads` or `mlp`")
        return self
