"""Gradient penalty: a student whose loss does not jump when its input moves a little.

Adds lambda * sum_b ||dL/dx_b|| to the loss L, with x_b what sample b's input embeddings (or pixels) are. As L is a mean
over the batch, this is lambda times the mean over samples of the norm of each one's own gradient.

The penalty's gradient is a second derivative times a vector. It is taken as a difference of two first ones,

    d/dtheta sum_b ||v_b|| = (dL/dtheta (x + r u) - dL/dtheta (x - r u)) / 2r,    v = dL/dx, u_b = v_b / ||v_b||,

because the fused pass gives first derivatives only. It costs two more forward and backward passes.

Reference:
    Drucker and LeCun, Improving Generalization Performance Using Double Backpropagation, 1992, doi:10.1109/72.165600.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from limbeck.core.errors import ModelError

if TYPE_CHECKING:
    from accelerate import Accelerator
    from transformers import PreTrainedModel

STEP = 1e-3
"""Length of the move, as a share of the mean norm of a sample's input. Float32 rounds gradients in the seventh digit,
so that the difference is good to about a thousandth; in bfloat16 nothing would be left of it."""


def penalised_backward(
    accelerator: Accelerator,
    wrapped: Any,
    student: PreTrainedModel,
    call: tuple[Any, ...],
    factor: float,
    penalty: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and gradients with the penalty's gradient added to the parameters'.

    Args:
        accelerator: the engine.
        wrapped: what is called.
        student: its input layer is watched and moved.
        call: arguments of `wrapped`.
        factor: makes the mean over the global batch out of the sum that `wrapped` returns.
        penalty: lambda.

    Returns:
        The loss without the penalty, and each term's sum, as `wrapped` gives them.

    Raises:
        ModelError: the student has no layer where its input could be moved.
    """
    seeds = _random_states()
    with _input(student, None) as seen:
        loss, values = wrapped(*call)
        accelerator.backward(loss * factor)
    given, slopes = seen[0].detach().float(), seen[0].grad.float()  # type: ignore[union-attr]
    norms = slopes.flatten(1).norm(dim=1).clamp(min=torch.finfo(torch.float32).tiny)
    towards = slopes / norms.reshape(-1, *[1] * (slopes.ndim - 1))
    length = STEP * float(given.flatten(1).norm(dim=1).mean())
    for sign in (1.0, -1.0):
        _random_states(seeds)  # the same dropout in all three passes, or they are of different functions
        with _input(student, sign * length * towards):
            moved, _ = wrapped(*call)
            accelerator.backward(moved * (sign * factor * penalty / (2 * length)))
    return loss, values


def _random_states(put: tuple[Tensor, list[Tensor]] | None = None) -> tuple[Tensor, list[Tensor]]:
    """The state of all generators that dropout draws from; put back if given."""
    if put is not None:
        torch.random.set_rng_state(put[0])
        if put[1]:
            torch.cuda.set_rng_state_all(put[1])
        return put
    return torch.random.get_rng_state(), torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []


@contextmanager
def _input(student: PreTrainedModel, move: Tensor | None) -> Iterator[list[Tensor]]:
    """Watches what goes into the student after its embedding, or adds `move` to it."""
    layer = _entry(student)
    seen: list[Tensor] = []

    def read(value: Tensor) -> Tensor:
        if move is not None:
            return value + move.to(value.dtype)
        if value.requires_grad:
            value.retain_grad()
        else:  # pixels, or a frozen embedding
            value = value.detach().requires_grad_()
        seen.append(value)
        return value

    if isinstance(layer, nn.Embedding):
        hook = layer.register_forward_hook(lambda module, given, output: read(output))
    else:
        hook = layer.register_forward_pre_hook(lambda module, given: (read(given[0]), *given[1:]))
    try:
        yield seen
    finally:
        hook.remove()


def _entry(student: PreTrainedModel) -> nn.Module:
    """The word embedding; for pictures the first convolution, at its input."""
    if student.main_input_name == "input_ids":
        return student.get_input_embeddings()
    found = next((m for m in student.modules() if isinstance(m, nn.Conv2d)), None)
    if found is None:
        name = type(student).__name__
        raise ModelError(f"{name} has no input layer for a gradient penalty", fix="gradient_penalty=0")
    return found
