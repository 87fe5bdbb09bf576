"""Greedy answers of language models: transformers' own loop, and one that builds the mask of steps as it goes.

Shapes: B prompts, T new tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import torch
import transformers

from limbeck.core.errors import DataError
from limbeck.tasks._structure import Layout, Marks, additive, parts_of, visible
from limbeck.tasks._text import pad

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def generate(
    model: PreTrainedModel, prompts: Sequence[list[int]], pad_id: int, ends: set[int], tokens: int, minimum: int = 0
) -> torch.Tensor:
    """Greedy continuation of prompts, [B, T] of new tokens.

    The model's own generation settings (a repetition penalty, say) are left out: all models of a comparison are
    decoded alike.
    """
    ids = pad(prompts, pad_id, "left").to(model.device)
    mask = pad([[1] * len(p) for p in prompts], 0, "left").to(model.device)
    plan = transformers.GenerationConfig(
        max_new_tokens=tokens,
        min_new_tokens=minimum or None,
        do_sample=False,
        pad_token_id=pad_id,
        eos_token_id=sorted(ends),
    )
    own, model.generation_config = model.generation_config, transformers.GenerationConfig()
    try:
        return model.generate(input_ids=ids, attention_mask=mask, generation_config=plan)[:, ids.shape[1] :]  # type: ignore
    finally:
        model.generation_config = own


@torch.no_grad()
def generate_in_steps(
    model: PreTrainedModel,
    prompts: Sequence[list[int]],
    marks: Marks,
    pad_id: int,
    ends: Collection[int],
    tokens: int,
    minimum: int = 0,
) -> torch.Tensor:
    """Greedy continuation under the mask of steps, [B, T] of new tokens; padding follows an end token.

    The first pass reads the prompts; then each new token is one pass over the cache of keys and values, with a mask
    row that says what this token sees. So keys are computed once, under the mask that training had.

    Args:
        model: in evaluation mode.
        prompts: token ids, none empty.
        marks: ids of the marks that steps are told by.
        pad_id: fills up on the left, and behind an end token.
        ends: tokens that end an answer.
        tokens: the most new tokens.
        minimum: the fewest, before which no end token is taken.

    Raises:
        DataError: a prompt is empty.
    """
    if not all(prompts):
        raise DataError("an empty prompt cannot be continued under the mask of steps", fix="task.mask=full")
    device = model.device
    layouts = [Layout(marks, prompt) for prompt in prompts]
    keys = parts_of(layouts, "left").to(device)
    positions = ((keys.part >= 0).cumsum(1) - 1).clamp(min=0)
    given: dict[str, Any] = {"input_ids": pad(prompts, pad_id, "left").to(device), "position_ids": positions}
    mask = additive(visible(keys, keys), model.dtype)
    stop, done = torch.tensor(sorted(ends), device=device), torch.zeros(len(prompts), dtype=torch.bool, device=device)
    found, cache = [], None
    for n in range(tokens):
        said = model(**given, attention_mask=mask, past_key_values=cache, use_cache=True)
        cache, scores_BV = said.past_key_values, said.logits[:, -1].float()
        if n < minimum:
            scores_BV[:, stop] = float("-inf")
        token_B = scores_BV.argmax(-1).masked_fill(done, pad_id)
        found.append(token_B)
        done |= torch.isin(token_B, stop)
        if done.all():
            break
        for layout, token in zip(layouts, token_B.tolist(), strict=True):
            layout.add(token)
        query = parts_of(layouts, last=1).to(device)
        keys, positions = keys.then(query), positions[:, -1:] + 1
        given, mask = (
            {"input_ids": token_B[:, None], "position_ids": positions},
            additive(visible(query, keys), model.dtype),
        )
    return torch.stack(found, 1)
