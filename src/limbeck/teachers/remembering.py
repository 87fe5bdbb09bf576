"""A teacher that is asked once about each sample, and remembers what it said.

Shapes: B batch, T positions, D hidden width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from limbeck.core.errors import RecipeError
from limbeck.core.types import Batch, Dense, Dist, Needs, Signal
from limbeck.teachers.local import LocalTeacher

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Said = dict[str, Tensor]
"""What is kept of a sample: its logits or hidden states, and its features, without padding."""


Memory = dict[tuple[str, bytes], Said]
_memories: dict[str, Memory] = {}


def memory_of(weights: str) -> Memory:
    """The memory of a teacher by its weights' digest and their type; runs of one process (seeds, a search) share it.

    Only the last teacher's is kept.
    """
    if weights not in _memories:
        _memories.clear()
    return _memories.setdefault(weights, {})


class RememberingTeacher(LocalTeacher):
    """Keeps what the teacher says of each sample in memory; worth it where rows are seen in many epochs.

    A sample is known again by its id and by all that the teacher read of it: a changed text, template or tokenizer is
    another sample. Padding is not kept, so any batch that holds the sample can be served.

    Args:
        model: the model; it is frozen and moved.
        device: where it runs.
        memory: what a teacher with the same weights was asked before, see `memory_of`.
        rows: see `LocalTeacher`.
    """

    def __init__(
        self, model: PreTrainedModel, device: Any = "cpu", memory: Memory | None = None, rows: Tensor | None = None
    ):
        super().__init__(model, device, rows)
        self.said: Memory = {} if memory is None else memory

    recorded = None
    """Its answers are to samples as they are, see `training.augment.refuse_without_replay`."""

    @torch.no_grad()
    def signal(self, batch: Batch, needs: Needs) -> Signal:
        """What the teacher says of a batch; only samples that are new are run.

        Raises:
            RecipeError: the samples are drawn anew in every step (augmented), so that nothing can be remembered, or
                several share a row.
        """
        batch.one_a_row("a teacher that remembers")
        if batch.blend is not None or any(draw is not None for draw in batch.draws or ()):
            raise RecipeError("a teacher cannot remember samples that are augmented", fix="teacher.remember=false")
        read = batch.teacher or batch
        keys = _keys(read)
        wanted = [*needs.features, *(["dist"] if needs.dist else [])]
        new = [i for i, key in enumerate(keys) if not set(wanted) <= self.said.get(key, {}).keys()]
        if new:
            rows = torch.tensor(new, device=read.labels.device)
            asked = replace(read.rows(rows), teacher=None)
            self._keep([keys[i] for i in new], asked, super().signal(asked, needs))
        found = [self.said[key] for key in keys]
        features = {name: _together([each[name] for each in found], read) for name in needs.features}
        return Signal(self._dist(found, read) if needs.dist else None, features)

    def _keep(self, keys: Sequence[tuple[str, bytes]], batch: Batch, told: Signal) -> None:
        values = dict(told.features)
        if told.dist is not None:
            values["dist"] = told.dist.logits if isinstance(told.dist, Dense) else told.dist.hidden  # type: ignore
        mask = batch.real
        for i, key in enumerate(keys):
            kept = {name: _real(value[i], None if mask is None else mask[i]) for name, value in values.items()}
            self.said.setdefault(key, {}).update(kept)

    def _dist(self, found: Sequence[Said], batch: Batch) -> Dist:
        values = _together([each["dist"] for each in found], batch)
        return Dense(values) if self.head is None else self.over_rows(values)


def _keys(batch: Batch) -> list[tuple[str, bytes]]:
    """The id of each sample, and a digest of what the teacher reads of it without padding."""
    mask, seen = batch.real, batch.inputs.get("attention_mask")
    inputs = [value for name, value in sorted(batch.inputs.items()) if name != "attention_mask"]
    keys = []
    for i, sample in enumerate(batch.ids):
        parts = [value[i] if mask is None else value[i][mask[i].bool()] for value in inputs]
        if seen is not None and mask is not None and seen.ndim == 4:  # says what each position sees, not padding alone
            parts.append(_real(seen[i], mask[i]))
        told = b"".join(part.cpu().contiguous().numpy().tobytes() for part in parts)
        keys.append((sample, hashlib.blake2b(told, digest_size=16).digest()))
    return keys


_PLACES = {1: (), 2: (0,), 3: (1, 2)}
"""By number of dimensions, those of a sample's value that go with its positions: [D], [T, D], [heads, T, T]."""


def _real(value: Tensor, mask_T: Tensor | None) -> Tensor:
    """A sample's value without padding.

    Raises:
        RecipeError: its shape is none that is known of texts.
    """
    if mask_T is None:
        return value.clone()
    places = mask_T.nonzero().squeeze(1)
    for dim in _PLACES.get(value.ndim, (-1,)):
        if value.shape[dim] != len(mask_T):
            raise RecipeError(
                "a teacher cannot remember a layer of this shape", got=tuple(value.shape), fix="teacher.remember=false"
            )
        value = value.index_select(dim, places)
    return value.clone()


def _together(values: Sequence[Tensor], batch: Batch) -> Tensor:
    """Samples of their own lengths as one batch, each at the places that its mask shows."""
    mask = batch.real
    along = () if mask is None else _PLACES[values[0].ndim]
    if mask is None or not along:
        return torch.stack(list(values))
    sizes = [mask.shape[1] if dim in along else size for dim, size in enumerate(values[0].shape)]
    made = values[0].new_zeros(len(values), *sizes)
    for i, value in enumerate(values):
        places = mask[i].nonzero().squeeze(1)
        if along == (0,):
            made[i, places] = value
        else:
            made[i, :, places[:, None], places] = value
    return made
