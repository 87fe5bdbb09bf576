"""A teacher that answers from a recording; its model is not there.

Shapes: B batch, T positions, N labelled positions, K classes that a row names, V classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from limbeck.cache.content import places, row_places
from limbeck.cache.features import together
from limbeck.cache.store import AGAIN, Cache
from limbeck.core.errors import RecipeError
from limbeck.core.types import Batch, Dense, Dist, Needs, Sampled, Signal, TopK

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class CachedTeacher:
    """What a teacher said of each sample when it was recorded, in whatever batch the sample stands now.

    Args:
        cache: the recording.
        model: the teacher without weights, whose layers are matched with the student's; None where no term reads any.

    Attributes:
        recorded: None: the teacher saw samples as they are, see `training.augment.refuse_without_replay`.
    """

    recorded = None

    def __init__(self, cache: Cache, model: PreTrainedModel | None = None):
        self.cache, self.model = cache, model

    def update(self, student: PreTrainedModel) -> None:
        """After a step of the student; a recording stays as it is."""

    @torch.no_grad()
    def signal(self, batch: Batch, needs: Needs) -> Signal:
        """What was recorded of a batch: distributions at labelled positions, layers at real ones.

        Raises:
            RecipeError: something is asked for that was not recorded, or samples are augmented.
            DataError: a sample was not recorded, or is not as it was.
            ArtifactError: the recording is damaged.
        """
        self._refuse(batch, needs)
        found = places(batch)
        at = [self.cache.find(place, sample) for place, sample in zip(found, batch.ids, strict=True)]
        device = batch.labels.device
        layers = {}
        if needs.features:
            told, where = self.cache.features(at), [(place.row, place.real) for place in found]
            for path in needs.features:
                layers[path] = together([each[path] for each in told], where, batch).to(device)
        if not needs.dist:
            return Signal(None, layers)
        return Signal(_placed(self.cache.dist(at), row_places(batch, found), batch.labels), layers)

    def _refuse(self, batch: Batch, needs: Needs) -> None:
        if batch.blend is not None or any(draw is not None for draw in batch.draws or ()):
            raise RecipeError("a recorded teacher did not see samples that are augmented", fix="leave out `cache`")
        if batch.teacher is not None:
            raise RecipeError("a recorded teacher reads the student's tokens alone", fix="leave out `cache`")
        kept = self.cache.format
        have = Needs(kept.codec is not None, frozenset(kept.features))
        if missing := have.missing(needs):
            allowed = ", ".join([*["dist"] * have.dist, *kept.features])
            raise RecipeError("this was not recorded of the teacher", got=missing[0], allowed=allowed, fix=AGAIN)


def _placed(dist: Dist, rows: Tensor, labels: Tensor) -> Dist:
    """Rows at their places among all positions; the places between are empty."""

    def at(value_N: Tensor, fill: float) -> Tensor:
        made = torch.full((labels.numel(), *value_N.shape[1:]), fill, dtype=value_N.dtype)
        made[rows] = value_N
        return made.reshape(*labels.shape, *value_N.shape[1:]).to(labels.device)

    if isinstance(dist, Dense):
        return Dense(at(dist.logits, 0.0))
    if isinstance(dist, Sampled):
        return Sampled(at(dist.ids, -1), at(dist.counts, 0))
    assert isinstance(dist, TopK)
    return TopK(at(dist.ids, -1), at(dist.logprobs, -torch.inf), at(dist.tail, 0.0))


def skeleton(model: PreTrainedModel) -> PreTrainedModel:
    """Let a model on the meta device, which has shapes and no weights, be run on real batches.

    It is only asked how large its layers are. Padding does not change that, so a mask, which libraries look into, is
    replaced by one that is ready to be added to the scores: that they take as it is.
    """

    def on_meta(module: Any, given: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        named = {k: v.to("meta") if isinstance(v, Tensor) else v for k, v in named.items()}
        if isinstance(mask := named.get("attention_mask"), Tensor):
            size = mask.shape[-1]
            named["attention_mask"] = torch.empty(len(mask), 1, size, size, dtype=model.dtype, device="meta")
        return given, named

    for each in {model, model.get_decoder() if model.get_output_embeddings() is not None else model}:
        each.register_forward_pre_hook(on_meta, with_kwargs=True)
    return model
