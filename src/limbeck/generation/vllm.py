"""A language model run by vLLM in this process, where that package is installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

from limbeck.core.errors import MissingExtra
from limbeck.generation._reading import Reader, check_extra, uniform_seed
from limbeck.generation.types import Failure, Outcome, Request

_AT_ONCE = 512
"""Requests handed over together; their answers are in the ledger before the next are asked."""


class VllmGenerator:
    """A generator over a folder or a hub name, run by vLLM.

    An answer's draws are seeded by the request's key; vLLM's own rounding hangs on how it batches.

    Args:
        model: the folder or the hub name.
        reader: its tokenizer, and its name.
        options: further arguments of vLLM's `LLM`.

    Raises:
        MissingExtra: vLLM is not installed.
    """

    def __init__(self, model: str, reader: Reader, **options: Any):
        if importlib.util.find_spec("vllm") is None:
            raise MissingExtra("engine: vllm", "vllm")
        from vllm import LLM

        self.reader, self.name = reader, reader.name
        self.engine = LLM(model=model, **options)
        self.longest = int(self.engine.llm_engine.model_config.max_model_len)

    def answer(self, requests: Sequence[Request], done: Callable[[Request, Outcome], None]) -> None:
        """Answer all requests, some hundred at a time.

        Raises:
            ModelError: the chat template refuses a conversation.
            RecipeError: `sampling.extra` holds a field that a local model does not know.
        """
        for start in range(0, len(requests), _AT_ONCE):
            fitting: list[tuple[Request, list[int]]] = []
            for request in requests[start : start + _AT_ONCE]:
                check_extra(request.sampling)
                ids = self.reader.prompt(request)
                if isinstance(ids, Failure):
                    done(request, ids)
                elif (whole := len(ids) + request.sampling.max_tokens) > self.longest:
                    done(request, Failure("too_long", f"{whole} tokens of prompt and answer, {self.longest} allowed"))
                else:
                    fitting.append((request, ids))
            if fitting:
                self._some(fitting, done)

    def _some(self, pairs: list[tuple[Request, list[int]]], done: Callable[[Request, Outcome], None]) -> None:
        prompts = [{"prompt_token_ids": ids} for _, ids in pairs]
        said = self.engine.generate(prompts, [self._params(r) for r, _ in pairs], use_tqdm=False)
        for (request, ids), each in zip(pairs, said, strict=True):
            answer = each.outputs[0]
            new = [token for token in answer.token_ids if token not in self.reader.stops]
            done(request, self.reader.outcome(request, ids, new, answer.finish_reason == "stop"))

    def _params(self, request: Request) -> Any:
        from vllm import SamplingParams

        asked = request.sampling
        return SamplingParams(
            temperature=asked.temperature,
            top_p=asked.top_p,
            top_k=asked.extra.get("top_k", 0),
            max_tokens=asked.max_tokens,
            stop=list(asked.stop) or None,
            stop_token_ids=sorted(self.reader.stops),
            seed=uniform_seed(request) % 2**31,
            skip_special_tokens=False,
        )
