"""What every optimization is: something that makes a student's answers cheaper and leaves them as they are."""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import torch
from pydantic import Field

from limbeck.core.parts import Part, part
from limbeck.runtime.card import Card
from limbeck.runtime.decoding import Decoding

if TYPE_CHECKING:
    import onnx
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Subject:
    """A student that is to be optimised.

    Attributes:
        folder: its files.
        card: how it is asked.
        model: in torch; None where the student is a graph already.
        writes: whether it is a language model, which torch runs; ONNX Runtime runs all others.
        device: where it will run: cpu or cuda.
    """

    folder: Path
    card: Card
    model: PreTrainedModel | None
    writes: bool
    device: torch.device


@part
class Optimization(Part, ABC):
    """A way to answer cheaper.

    It is tried on top of those before it that were kept. The parts do what they do to one of these: the model in
    torch, its export, the graph that came of it, the loop that makes an answer.
    """

    # `kw_only` anew: pydantic forgets it of fields that a part inherits from another part.

    keep: bool = Field(default=False, kw_only=True)
    """Keep it even if it is slower, or differs by more than is let pass."""
    same_answers: float | None = Field(default=None, kw_only=True, ge=0, le=1)
    """The least share of rows, or of new tokens, with the same answer. Left out: 0.99, and 0.95 where numbers are
    rounded."""

    exact: ClassVar[bool] = True
    """Whether it changes nothing but the order of sums."""
    attention: ClassVar[str] = "eager"
    """transformers' attention that is exported; another than `eager` wins."""
    opset: ClassVar[int] = 20
    """Version of the graph's operators, at least."""

    @property
    def least(self) -> float:
        """The smallest share of same answers that is let pass."""
        return self.same_answers if self.same_answers is not None else 0.99 if self.exact else 0.95

    @property
    def most(self) -> float | None:
        """The largest difference that is let pass, as a share of the largest logit; None: any."""
        return 1e-3 if self.exact else None

    def refusal(self, subject: Subject) -> str | None:
        """Why it does nothing for a student, in a few words; None where it does something."""
        return None

    def module(self, model: PreTrainedModel) -> None:
        """Change the model in torch."""

    def graph(self, model: onnx.ModelProto, subject: Subject) -> onnx.ModelProto:
        """Change its graph."""
        return model

    def decoding(self, now: Decoding) -> Decoding:
        """Change the loop that makes an answer."""
        return now


class OfGraphs:
    """What those have in common that are for students in ONNX Runtime."""

    def refusal(self, subject: Subject) -> str | None:
        """Why it does nothing for a student, in a few words; None where it does something."""
        return "language models run in torch, not in ONNX Runtime" if subject.writes else None


class OfWriters:
    """What those have in common that are for answers made token by token."""

    def refusal(self, subject: Subject) -> str | None:
        """Why it does nothing for a student, in a few words; None where it does something."""
        if not subject.writes:
            return "the student gives one answer a row, and keeps no keys and values"
        if subject.card.task.get("mask") == "steps":
            return "the task's mask of steps has a loop of its own"
        return None


def decoding_by(passes: Sequence[Optimization]) -> Decoding:
    """How answers are made when these are taken together, in their order."""
    found = Decoding()
    for each in passes:
        found = each.decoding(found)
    return found
