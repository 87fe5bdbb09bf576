"""What a model is asked while it is measured: one row through a classifier, or a fixed number of new tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import torch

from limbeck.core.errors import DataError
from limbeck.core.types import Batch, Sample
from limbeck.evaluation.efficiency.latency import Request
from limbeck.evaluation.predict import device_of, says
from limbeck.tasks import Codec
from limbeck.tasks.causal_lm import CausalCodec

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from limbeck.evaluation.predict import Measured

NEW_TOKENS = 16
"""New tokens in one timed request to a language model."""


class Requests:
    """The same rows for every model, tokenized or scaled beforehand: what is timed is the model.

    Args:
        model: in evaluation mode.
        codec: of its rows.
        samples: the rows; request i is row i, from the first again after the last.

    Raises:
        DataError: no row can be read.
    """

    def __init__(self, model: Measured, codec: Codec, samples: Sequence[Sample]):
        self.model, self.codec = model, codec
        self.device = device_of(model)
        self.features = codec.encode(samples).features
        if not self.features:
            raise DataError("no row can be read by the model whose speed is to be measured", got=f"{len(samples)} rows")
        self.prompts = [codec.prompt_ids(sample) for sample in samples] if isinstance(codec, CausalCodec) else []

    def single(self) -> Request:
        """Rows one by one."""
        return self.many(1)

    def many(self, size: int) -> Request:
        """So many rows at a time."""
        if isinstance(self.codec, CausalCodec):
            return lambda i: self._generate(size, i)
        count = -(-len(self.features) // size)
        batches = [self._batch(size, i) for i in range(count)]
        return lambda i: says(self.model, batches[i % count])

    def longest(self) -> Request:
        """The longest row, ever again."""
        sizes = [len(p) for p in self.prompts] or [f.length for f in self.features]
        single, place = self.single(), sizes.index(max(sizes))
        return lambda i: single(place)

    def typical(self) -> Batch:
        """A row of middle length, as in training: of a language model, prompt and answer."""
        ordered = sorted(self.features, key=lambda feature: feature.length)
        return self.codec.collate([ordered[len(ordered) // 2]]).to(self.device)

    def _batch(self, size: int, i: int) -> Batch:
        chosen = [self.features[(i * size + k) % len(self.features)] for k in range(size)]
        return self.codec.collate(chosen).to(self.device)

    def _generate(self, size: int, i: int) -> torch.Tensor:
        codec = cast(CausalCodec, self.codec)
        prompts = [self.prompts[(i * size + k) % len(self.prompts)] for k in range(size)]
        end = {cast(int, codec.processor.eos_token_id)}
        return codec.generate(cast("PreTrainedModel", self.model), prompts, end, NEW_TOKENS, NEW_TOKENS)
