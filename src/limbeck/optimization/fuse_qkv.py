"""Query, key and value as one product."""

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
class FuseQkv(Optimization):
    """Query, key and value projections as one linear layer: one product for three."""

    def refusal(self, subject: Subject) -> str | None:
        return nothing_to_merge(subject, "qkv", "query, key and value projections beside each other")

    def module(self, model: PreTrainedModel) -> None:
        fuse(model, "qkv")

    def decoding(self, now: Decoding) -> Decoding:
        return merged(now, "qkv")
