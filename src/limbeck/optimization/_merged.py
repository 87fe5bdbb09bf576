"""What both merges of linear layers have in common."""

from __future__ import annotations

from dataclasses import replace

from limbeck.models.fused import groups
from limbeck.optimization._base import Subject
from limbeck.runtime.decoding import Decoding


def nothing_to_merge(subject: Subject, kind: str, what: str) -> str | None:
    """Why no layers can be merged; None where some can.

    Args:
        subject: the student.
        kind: of layers, see `models.fused`.
        what: how they are called.
    """
    if subject.model is None:
        return "the student is a graph already: layers are merged before it is compressed or exported"
    return None if next(groups(subject.model, kind), None) else f"the model has no {what}"


def merged(now: Decoding, kind: str) -> Decoding:
    """The same loop with layers merged."""
    return replace(now, fused=(*now.fused, kind))
