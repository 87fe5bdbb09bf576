"""The two first layers of a gated MLP as one product."""

from __future__ import annotations

from typing import TYPE_CHECKING

from limbeck.core.parts import part
from limbeck.models.fused import fuse
from limbeck.optimization._base import Optimization, Subject
from limbeck.optimization._merged import merged, nothing_to_merge
from limbeck.runtime.decoding import Decoding

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@part
class FuseMlp(Optimization):
    """Gate and up projections of gated MLPs as one linear layer: one product for two."""

    def refusal(self, subject: Subject) -> str | None:
        return nothing_to_merge(subject, "gate_up", "gate and up projections beside each other")

    def module(self, model: PreTrainedModel) -> None:
        fuse(model, "gate_up")

    def decoding(self, now: Decoding) -> Decoding:
        return merged(now, "gate_up")
