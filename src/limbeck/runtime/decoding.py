"""How a language model's answers are made: merged layers, which cache, compiled or not. Its card tells it.

The cache's kind is also in `generation_config.json`, where transformers itself looks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
import transformers

from limbeck.core.errors import ModelError
from limbeck.models.fused import SIBLINGS, fuse
from limbeck.runtime.card import Card
from limbeck.tasks._text import pad

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FACT = "decoding"
"""Where a card tells it, among its facts."""
Mode = Literal["default", "reduce-overhead", "max-autotune-no-cudagraphs", "max-autotune"]


@dataclass(frozen=True)
class Decoding:
    """How answers are made; as it stands, as transformers does it by itself.

    Attributes:
        fused: kinds of layers that are one product, see `models.fused`.
        cache: static, quantized; None: one that grows.
        cache_config: fields of a quantized cache.
        room: positions of a static cache, at least; None: as many as an answer needs.
        compile: torch.compile's mode for single steps; None: they are not compiled.
    """

    fused: tuple[str, ...] = ()
    cache: Literal["static", "quantized"] | None = None
    cache_config: dict[str, Any] = field(default_factory=dict)
    room: int | None = None
    compile: Mode | None = None

    @property
    def plain(self) -> bool:
        """Whether caches and steps are as they are by themselves."""
        return self.cache is None and self.compile is None

    def told(self) -> dict[str, Any]:
        """As a card tells it."""
        return {**asdict(self), "fused": list(self.fused)}

    def changed(self, model: PreTrainedModel) -> PreTrainedModel:
        """The model with its layers merged; it is changed."""
        for kind in self.fused:
            if not fuse(model, kind):
                raise ModelError("the card tells of merged layers that the student has not", got=kind)
        return model

    def fields(self, device: torch.device) -> dict[str, Any]:
        """The same as fields of transformers' GenerationConfig, but for what merges layers.

        Args:
            device: of the model.
        """
        found: dict[str, Any] = {"cache_implementation": self.cache}
        if self.cache == "quantized":
            found["cache_config"] = dict(self.cache_config)
        if self.cache == "static" and self.room is not None:
            found["max_cache_len"] = self.room
        if self.compile is None:
            found["disable_compile"] = True  # else a static cache on a GPU would be compiled for
        else:
            found["compile_config"] = _compiling(self.compile)
        return found

    def new_cache(self, model: PreTrainedModel, positions: int) -> transformers.Cache | None:
        """An empty cache; None where the model makes its own.

        Args:
            model: whose keys and values it takes.
            positions: of prompt and answer together.
        """
        if self.cache == "static":
            return transformers.StaticCache(config=model.config, max_cache_len=max(positions, self.room or 0))
        if self.cache == "quantized":
            config = model.config.get_text_config(decoder=True)
            return transformers.QuantizedCache(config=config, **{"backend": "quanto", **self.cache_config})
        return None

    def step(self, model: PreTrainedModel) -> Callable[..., Any]:
        """What is called for a single new token."""
        return model if self.compile is None else model.get_compiled_call(_compiling(self.compile))

    def generate(
        self,
        model: PreTrainedModel,
        prompts: Sequence[Sequence[int]],
        pad_id: int,
        ends: Sequence[int],
        tokens: int,
        **more: Any,
    ) -> Any:
        """What transformers' own loop makes of prompts, greedily.

        Args:
            model: in evaluation mode.
            prompts: token ids, none empty.
            pad_id: fills up on the left.
            ends: tokens that end an answer.
            tokens: the most new tokens.
            more: further fields of the GenerationConfig.
        """
        ids = pad([list(each) for each in prompts], pad_id, "left").to(model.device)
        mask = pad([[1] * len(each) for each in prompts], 0, "left").to(model.device)
        plan = transformers.GenerationConfig(
            max_new_tokens=tokens,
            do_sample=False,
            pad_token_id=pad_id,
            eos_token_id=sorted(ends),
            **self.fields(model.device),
            **more,
        )
        own, model.generation_config = model.generation_config, transformers.GenerationConfig()
        try:
            return model.generate(input_ids=ids, attention_mask=mask, generation_config=plan)  # type: ignore[operator]
        finally:
            model.generation_config = own


def decoding_of(card: Card) -> Decoding:
    """What a card tells of it.

    Raises:
        ModelError: it tells something that is not known here.
    """
    told = dict(card.facts.get(FACT, {}))
    try:
        found = Decoding(**{**told, "fused": tuple(told.get("fused", ()))})
    except TypeError as error:
        raise ModelError("the card tells a way of decoding that is not known here", got=error) from error
    if unknown := set(found.fused) - set(SIBLINGS):
        raise ModelError("the card tells of merged layers that are not known here", got=", ".join(sorted(unknown)))
    return found


def _compiling(mode: str) -> transformers.CompileConfig:
    found = transformers.CompileConfig(mode=mode)
    found._compile_all_devices = True  # type: ignore[assignment]  # else a CPU's steps are never compiled
    return found
