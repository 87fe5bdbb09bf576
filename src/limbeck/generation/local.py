"""A language model of this process that writes: transformers' own loop, prompts of like length together.

What is drawn for an answer hangs on the request's key alone: the n-th token is where the n-th uniform number of the
request's own stream falls in the cumulated distribution. Which other requests share the batch changes an answer only
through rounding: padding and batch shape move a model's logits in their last bits, so that a token whose neighbour's
boundary lies as near as that may come out differently. With the same requests, batch size, machine and libraries,
answers are the same to the bit.

Shapes: B requests, P tokens of the longest prompt, T new tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
import torch
import transformers
from torch import Tensor

from limbeck.core.errors import ModelError
from limbeck.core.progress import say
from limbeck.generation._reading import Reader, check_extra, uniform_seed
from limbeck.generation.types import Failure, Outcome, Request, Sampling

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Done = Callable[[Request, Outcome], None]


class LocalGenerator:
    """A generator over a model in memory.

    Args:
        model: a language model in evaluation mode, on its device.
        reader: its tokenizer, and its name.
        batch_size: requests answered together; halved where memory does not suffice.
    """

    def __init__(self, model: PreTrainedModel, reader: Reader, batch_size: int = 16):
        self.model, self.reader, self.batch_size = model, reader, batch_size
        self.name = reader.name
        own = getattr(model.generation_config, "eos_token_id", None)
        self.ends = reader.stops | frozenset([own] if isinstance(own, int) else own or [])
        if not self.ends:
            raise ModelError(f"{self.name} has no end token, so that an answer could not end")

    def answer(self, requests: Sequence[Request], done: Done) -> None:
        """Answer all requests, the longest prompts first; `done` is called after each batch.

        Raises:
            ModelError: the chat template refuses a conversation.
            RecipeError: `sampling.extra` holds a field that a local model does not know.
        """
        prompts: list[tuple[Request, list[int]]] = []
        positions = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        for request in requests:
            check_extra(request.sampling)
            ids = self.reader.prompt(request)
            if isinstance(ids, Failure):
                done(request, ids)
                continue
            whole = len(ids) + request.sampling.max_tokens
            if isinstance(positions, int) and whole > positions:
                done(request, Failure("too_long", f"{whole} tokens of prompt and answer, {positions} positions"))
            else:
                prompts.append((request, ids))

        def alike(pair: tuple[Request, list[int]]) -> str:
            return repr(pair[0].sampling)

        for _, group in groupby(sorted(prompts, key=alike), alike):
            # By length, then by key: the same requests make the same batches, in whatever order they came.
            self._all(sorted(group, key=lambda pair: (-len(pair[1]), pair[0].key)), done)

    def _all(self, waiting: list[tuple[Request, list[int]]], done: Done) -> None:
        while waiting:
            now = waiting[: self.batch_size]
            try:
                outcomes = self._batch([request for request, _ in now], [ids for _, ids in now])
            except torch.OutOfMemoryError:
                torch.cuda.empty_cache()
                if len(now) > 1:
                    self.batch_size = max(1, len(now) // 2)
                    say(f"too little memory for {len(now)} answers at a time; {self.batch_size} from now on")
                    continue
                outcomes = [Failure("out_of_memory", f"a prompt of {len(now[0][1])} tokens")]
            for (request, _), outcome in zip(now, outcomes, strict=True):
                done(request, outcome)
            waiting = waiting[len(now) :]

    def _batch(self, requests: list[Request], prompts: list[list[int]]) -> list[Outcome]:
        sampling = requests[0].sampling
        tokenizer, width = self.reader.tokenizer, max(map(len, prompts))
        pad = next(i for i in (tokenizer.pad_token_id, *sorted(self.ends)) if i is not None)
        ids_BP = torch.tensor([[pad] * (width - len(p)) + p for p in prompts], device=self.model.device)
        mask_BP = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=self.model.device)
        plan = transformers.GenerationConfig(
            max_new_tokens=sampling.max_tokens,
            do_sample=False,  # the draw is made in the logits
            pad_token_id=pad,
            eos_token_id=sorted(self.ends),
            stop_strings=list(sampling.stop) or None,
        )
        draws = [] if sampling.temperature == 0 else [Drawn(requests, width)]
        own, self.model.generation_config = self.model.generation_config, transformers.GenerationConfig()
        try:
            made_BT = self.model.generate(  # type: ignore[operator]
                input_ids=ids_BP,
                attention_mask=mask_BP,
                generation_config=plan,
                logits_processor=transformers.LogitsProcessorList(draws),
                **({"tokenizer": tokenizer} if sampling.stop else {}),
            )[:, width:].tolist()
        finally:
            self.model.generation_config = own
        return [self._outcome(*each, pad) for each in zip(requests, prompts, made_BT, strict=True)]

    def _outcome(self, request: Request, prompt: list[int], made: list[int], pad: int) -> Outcome:
        end = next((at for at, token in enumerate(made) if token in self.ends), None)
        new = made[:end]
        if end is None and request.sampling.stop:  # an answer that a text ended is filled up, if others went on
            while new and new[-1] == pad:
                new.pop()
        return self.reader.outcome(request, prompt, new, end is not None)


class Drawn(transformers.LogitsProcessor):
    """Leaves one token of each row: the one that the row's own uniform number falls on.

    token = min {v : sum_{w <= v} p_w > u}, with p = softmax(logits / temperature) cut to `top_k` and `top_p`

    Args:
        requests: one a row; all with the same sampling.
        width: tokens before the first new one.
    """

    def __init__(self, requests: Sequence[Request], width: int):
        self.sampling, self.width = requests[0].sampling, width
        self.uniform_BT = np.stack(
            [np.random.default_rng(uniform_seed(r)).random(r.sampling.max_tokens) for r in requests]
        )

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Logits of which one in each row is not -inf.

        Args:
            input_ids: prompt and new tokens so far, [B, P + t].
            scores: logits, [B, V].
        """
        probabilities_BV = distribution(scores, self.sampling).double()
        u_B1 = torch.from_numpy(self.uniform_BT[:, [input_ids.shape[1] - self.width]]).to(scores.device)
        cumulated_BV = probabilities_BV.cumsum(-1)
        token_B1 = torch.searchsorted(cumulated_BV, u_B1 * cumulated_BV[:, -1:], right=True)
        return torch.full_like(scores, float("-inf")).scatter(1, token_B1.clamp(max=scores.shape[1] - 1), 0.0)


def distribution(logits_BV: Tensor, sampling: Sampling) -> Tensor:
    """What is drawn from, [B, V]; not normalised again after the cut.

    Args:
        logits_BV: of the model, [B, V].
        sampling: temperature, `top_k` and `top_p`.
    """
    probabilities_BV = (logits_BV.float() / sampling.temperature).softmax(-1)
    if (k := sampling.extra.get("top_k")) is not None and 0 < k < probabilities_BV.shape[1]:
        least_B1 = probabilities_BV.topk(k).values[:, -1:]
        probabilities_BV = probabilities_BV.masked_fill(probabilities_BV < least_B1, 0.0)
    if sampling.top_p < 1:
        sorted_BV, order_BV = probabilities_BV.sort(stable=True, dim=-1, descending=True)
        sorted_BV = sorted_BV / sorted_BV.sum(-1, keepdim=True)
        before_BV = sorted_BV.cumsum(-1) - sorted_BV
        cut_BV = torch.zeros_like(before_BV, dtype=torch.bool).scatter(1, order_BV, before_BV >= sampling.top_p)
        probabilities_BV = probabilities_BV.masked_fill(cut_BV, 0.0)
    return probabilities_BV
