"""Which models read packed rows rightly: several samples in a row, each as if it were alone.

Shapes: B rows, T positions, D hidden width.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import torch

from limbeck.core.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5}
"""Rounding, as a share of the largest hidden value; 0.02 for half precision."""


@torch.no_grad()
def check_packed(model: PreTrainedModel, name: str) -> None:
    """Make sure that a model obeys the mask and the positions of packed rows.

    Two short samples are read alone and in one row, with the mask and the positions that keep them apart and, for
    comparison, without. What the model holds at the second one must be as if it were alone.

    Args:
        model: a language model.
        name: how a message calls it.

    Raises:
        ModelError: it has layers that take no such mask (sliding windows, states), takes no positions, or does not
            obey.
    """
    config = model.config.get_text_config()
    kind, layers = config._attn_implementation, set(getattr(config, "layer_types", None) or ())
    if not layers and getattr(config, "sliding_window", None) is not None:
        layers = {"sliding_attention"}  # in all of them, as Mistral's; the texts below are too short to show it
    decoder = model.get_decoder()
    fix = "attn_implementation: sdpa; or task.packing=false"
    takes_positions = "position_ids" in inspect.signature(decoder.forward).parameters
    if kind not in ("sdpa", "eager") or not layers <= {"full_attention"} or not takes_positions:
        raise ModelError(
            f"{name} ({type(model).__name__}) cannot read packed rows",
            got=f"{kind}; layers: {', '.join(sorted(layers)) or 'unnamed'}; positions: {takes_positions}",
            allowed="full attention in every layer, by sdpa or eager, and position_ids",
            fix=fix,
        )
    training = model.training
    model.eval()
    try:
        ids_BT = torch.arange(1, 8, device=model.device)[None] % model.config.vocab_size
        owner_T = torch.tensor([0, 0, 0, 1, 1, 1, 1], device=model.device)
        count_T = torch.arange(7, device=model.device)
        causal_TT = count_T[:, None] >= count_T[None, :]
        apart_TT = causal_TT & (owner_T[:, None] == owner_T[None, :])
        alone_TD = _hidden(model, ids_BT[:, 3:], causal_TT[:4, :4], count_T[:4])
        packed_TD = _hidden(model, ids_BT, apart_TT, torch.where(owner_T == 0, count_T, count_T - 3))[3:]
        mixed_TD = _hidden(model, ids_BT, causal_TT, count_T)[3:]
    finally:
        model.train(training)
    error, other = (float((each - alone_TD).abs().max()) for each in (packed_TD, mixed_TD))
    rounding = _TOLERANCE.get(model.dtype, 0.02) * float(alone_TD.abs().max())
    if error > max(rounding, 1e-3 * other):
        raise ModelError(
            f"{name} ({type(model).__name__}) does not keep packed samples apart",
            got=f"a sample differs by {error:.2e} from itself alone, by {other:.2e} if nothing keeps them apart",
            fix=fix,
        )


def _hidden(model: PreTrainedModel, ids_BT: Tensor, seen_TT: Tensor, positions_T: Tensor) -> Tensor:
    mask_TT = torch.zeros(seen_TT.shape, dtype=model.dtype, device=model.device)
    mask_TT = mask_TT.masked_fill(~seen_TT, float("-inf"))
    decoder = model.get_decoder()
    given = {"attention_mask": mask_TT[None, None], "position_ids": positions_T[None]}
    said = decoder(input_ids=ids_BT, **given, use_cache=False)
    hidden_TD: Tensor = said.last_hidden_state[0].double()
    return hidden_TD
