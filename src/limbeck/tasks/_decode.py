"""Answers of language models: transformers' own loop, one that builds the mask of steps as it goes, and one that draws.

Shapes: B prompts, T tokens, V vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
import transformers
from transformers.cache_utils import DynamicLayer

from limbeck.core.errors import DataError
from limbeck.tasks._structure import Layout, Marks, additive, parts_of, visible
from limbeck.tasks._text import pad

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FULL = 0.75
"""Rows that have ended leave the batch when no more than this share of it is left; each time costs a copy."""
NUCLEUS = 512
"""Likeliest tokens that are looked at first with top-p."""
THIN = 8
"""Rows up to which the output matrix is the first factor; with 32,000 x 256, from 16 rows on it is no better."""


class Live:
    """An answer to one prompt that is heard while it is made, and may be drawn.

    Args:
        hear: takes each new token; true ends the answer there.
        temperature: what tokens are drawn at; 0 is greedy.
        seed: of the draw.
    """

    def __init__(self, hear: Callable[[int], bool], temperature: float = 0.0, seed: int = 0):
        self.hear, self.drawing, self.draws = hear, Drawing(temperature), np.random.default_rng(seed)

    def choose(self, scores_1V: torch.Tensor) -> torch.Tensor:
        """The next token, [1].

        Args:
            scores_1V: logits.
        """
        return draw(scores_1V, torch.tensor([self.draws.random()], device=scores_1V.device), self.drawing)

    def hooks(self) -> dict[str, Any]:
        """The same for transformers' own loop: what it calls before a token is chosen, and after."""

        def only(_: torch.Tensor, scores_1V: torch.Tensor) -> torch.Tensor:
            return torch.full_like(scores_1V, float("-inf")).scatter(1, self.choose(scores_1V)[:, None], 0.0)

        def over(ids_1T: torch.Tensor, _: Any, **__: Any) -> torch.Tensor:
            return torch.full((1,), self.hear(int(ids_1T[0, -1])), device=ids_1T.device)

        draws = [only] if self.drawing.temperature > 0 else []
        return {
            "logits_processor": transformers.LogitsProcessorList(draws),
            "stopping_criteria": transformers.StoppingCriteriaList([over]),
        }


def generate(
    model: PreTrainedModel,
    prompts: Sequence[list[int]],
    pad_id: int,
    ends: set[int],
    tokens: int,
    minimum: int = 0,
    live: Live | None = None,
) -> torch.Tensor:
    """Continuation of prompts, [B, T] of new tokens; greedy, unless `live` draws.

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
    hooks = {} if live is None else live.hooks()
    own, model.generation_config = model.generation_config, transformers.GenerationConfig()
    try:
        return model.generate(input_ids=ids, attention_mask=mask, generation_config=plan, **hooks)[:, ids.shape[1] :]  # type: ignore
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
    live: Live | None = None,
) -> torch.Tensor:
    """Continuation under the mask of steps, [B, T] of new tokens; padding follows an end token. Greedy, unless `live`
    draws.

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
        live: hears the answer while it is made; for one prompt.

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
        token_B = (scores_BV.argmax(-1) if live is None else live.choose(scores_BV)).masked_fill(done, pad_id)
        found.append(token_B)
        done |= torch.isin(token_B, stop)
        if live is not None and live.hear(int(token_B[0])):
            break
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


@dataclass(frozen=True)
class Drawing:
    """How an answer's tokens are drawn.

    Attributes:
        temperature: 0 is greedy.
        top_p: draw from the likeliest tokens that hold this much of the probability.
        forbidden: tokens that are never drawn, [V] of bool; None: all may be.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    forbidden: torch.Tensor | None = None


@torch.no_grad()
def sample(
    model: PreTrainedModel,
    prompts: Sequence[list[int]],
    pad_id: int,
    ends: Collection[int],
    chances: np.ndarray,
    drawing: Drawing,
) -> list[list[int]]:
    """Answers drawn from a model, each up to and including its end token.

    A row's tokens follow from its own prompt and its own chances: which other rows there are changes them no more
    than rounding does. Rows that have ended leave the batch, and keys and values are written into room taken once.

    Args:
        model: in evaluation mode; its logits are hidden states times its output matrix.
        prompts: token ids, none empty.
        pad_id: fills up on the left.
        ends: tokens that end an answer.
        chances: [B, T] numbers from 0 up to 1, one for each token of each row; T is the most new tokens.
        drawing: how they are used.

    Raises:
        DataError: a prompt is empty.
    """
    if not all(prompts):
        raise DataError("a model cannot begin a text out of nothing: a prompt has no tokens")
    device, room = model.device, chances.shape[1]
    head, body = cast(torch.nn.Linear, model.get_output_embeddings()), model.get_decoder()
    takes_positions = "position_ids" in inspect.signature(body.forward).parameters
    # Float64 where there is any: in float32 a sum over 150,000 tokens is good to some 1e-5.
    chances_BT = torch.from_numpy(chances).to(device, torch.float32 if device.type == "mps" else torch.float64)
    ids_BT = pad(prompts, pad_id, "left").to(device)
    width = ids_BT.shape[1]
    mask_BT = pad([[1] * (len(prompt) + room) for prompt in prompts], 0, "left").to(device)
    positions = (mask_BT.cumsum(1) - 1).clamp(min=0)
    stop = torch.tensor(sorted(ends), device=device)
    cache = _roomy_cache(model, width + room)
    rows, ended = list(range(len(prompts))), [False] * len(prompts)
    answers: list[list[int]] = [[] for _ in prompts]
    for n in range(room):
        at = slice(0, width) if n == 0 else slice(width + n - 1, width + n)
        given: dict[str, Any] = {"input_ids": ids_BT, "attention_mask": mask_BT[:, : at.stop]}
        given |= {"position_ids": positions[:, at]} if takes_positions else {}
        said = body(**given, past_key_values=cache, use_cache=True)
        scores_BV = _scores(said.last_hidden_state[:, -1], head)
        token_B = draw(scores_BV, chances_BT[:, n], drawing)
        for place, (token, last) in enumerate(zip(token_B.tolist(), torch.isin(token_B, stop).tolist(), strict=True)):
            if not ended[place]:
                answers[rows[place]].append(token)
                ended[place] = last
        ids_BT = token_B[:, None]
        left = [place for place, over in enumerate(ended) if not over]
        if not left:
            break
        if len(left) <= FULL * len(rows):
            keep = torch.tensor(left, device=device)
            cache.batch_select_indices(keep)
            ids_BT, mask_BT, positions, chances_BT = (x[keep] for x in (ids_BT, mask_BT, positions, chances_BT))
            rows, ended = [rows[place] for place in left], [False] * len(left)
    return answers


def _scores(hidden_BD: torch.Tensor, head: torch.nn.Linear) -> torch.Tensor:
    """Logits of a few rows, [B, V]: on a CPU the product of a large matrix with a thin one takes half the time when
    the large one stands first."""
    thin = hidden_BD.device.type == "cpu" and len(hidden_BD) <= THIN and not torch.is_autocast_enabled("cpu")
    if not thin or head.weight.dtype != hidden_BD.dtype:
        return torch.nn.functional.linear(hidden_BD, head.weight, head.bias)
    scores_BV = (head.weight @ hidden_BD.T).T.contiguous()
    return scores_BV if head.bias is None else scores_BV + head.bias


def draw(scores_BV: torch.Tensor, chance_B: torch.Tensor, drawing: Drawing) -> torch.Tensor:
    """One token of each row, [B]: where its chance falls in the sum of the probabilities.

    Args:
        scores_BV: logits.
        chance_B: from 0 up to 1; its type is that of the sum.
        drawing: temperature, top-p, and what is never drawn.
    """
    if drawing.forbidden is not None:
        scores_BV = scores_BV.masked_fill(drawing.forbidden, float("-inf"))
    if drawing.temperature == 0:
        return scores_BV.argmax(-1)
    probs_BV = (scores_BV.float() / drawing.temperature).softmax(-1)
    order_BK = None
    if drawing.top_p < 1:
        probs_BV, order_BK = _likeliest(probs_BV, drawing.top_p)
        before_BV = probs_BV.cumsum(-1, dtype=chance_B.dtype) - probs_BV
        probs_BV = probs_BV.masked_fill(before_BV >= drawing.top_p, 0.0)  # the first token always stays
    sum_BV = probs_BV.cumsum(-1, dtype=chance_B.dtype)
    # The first place whose sum is above the chance has a probability, also where others before it have none.
    found_B1 = torch.searchsorted(sum_BV, chance_B[:, None] * sum_BV[:, -1:], right=True)
    found_B1 = found_B1.clamp(max=probs_BV.shape[1] - 1)
    return (found_B1 if order_BK is None else order_BK.gather(1, found_B1)).squeeze(1)


def _likeliest(probs_BV: torch.Tensor, share: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities, falling, and their tokens, the lower id first: as many as hold a share surely, at least.

    Of 32,000 tokens, to find the likeliest few takes a tenth of sorting all. These are enough where their last one is
    rarer than the last one that is needed: what is left out has no say then in which tokens come, and in what order.
    """
    if probs_BV.shape[1] > 4 * NUCLEUS:
        order_BK = probs_BV.topk(NUCLEUS, sorted=False).indices.sort(dim=-1).values
        top_BK, places_BK = probs_BV.gather(1, order_BK).sort(dim=-1, descending=True, stable=True)
        needed_B = (top_BK.cumsum(-1, dtype=torch.float64) - top_BK < share + 1e-6).sum(-1, keepdim=True)
        needed_B = needed_B.clamp(max=NUCLEUS) - 1
        if bool((top_BK.gather(1, needed_B) > top_BK[:, -1:]).all()):
            return top_BK, order_BK.gather(1, places_BK)
    all_BV, order_BV = probs_BV.sort(dim=-1, descending=True, stable=True)
    return all_BV, order_BV


def end_tokens(tokenizer: Any, model: PreTrainedModel) -> set[int]:
    """Tokens that end an answer: the tokenizer's end token, and those that the model's own settings name."""
    own = model.generation_config.eos_token_id if model.generation_config is not None else None
    listed = own if isinstance(own, list) else [] if own is None else [own]
    return {tokenizer.eos_token_id, *listed}


class _Roomy(DynamicLayer):
    """Keys and values of a layer in room that is taken once; transformers' own copies all of them for each token."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room, self.filled = room, 0
        self.store: list[torch.Tensor] = []

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write new keys and values behind the old ones, and give all."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.store = [x.new_empty(*x.shape[:2], self.room, x.shape[3]) for x in (key_states, value_states)]
        end = self.filled + key_states.shape[2]
        for store, new in zip(self.store, (key_states, value_states), strict=True):
            store[:, :, self.filled : end] = new
        self.filled = end
        self.keys, self.values = (store[:, :, :end] for store in self.store)
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep some rows only."""
        kept = []
        for store in self.store:
            new = store.new_empty(len(indices), *store.shape[1:])
            new[:, :, : self.filled] = store[indices, :, : self.filled]
            kept.append(new)
        self.store = kept
        self.keys, self.values = (store[:, :, : self.filled] for store in self.store)


def _roomy_cache(model: PreTrainedModel, room: int) -> transformers.DynamicCache:
    """transformers' cache for a model, with room in those layers that see the whole text."""
    cache = transformers.DynamicCache(config=model.config)
    cache.layers = [_Roomy(room) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache
