"""What perturbations have in common: a sample in, a changed sample or the reason against it out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from limbeck.core.errors import RecipeError
from limbeck.core.parts import Part, part
from limbeck.core.types import Sample
from limbeck.data.augmentation import DrawKey

TAG = "perturbation"
"""The field of a sample's meta that says how it was changed; several changes are joined by `+`."""
ORIGIN = "perturbed_from"
"""The field of a sample's meta with the id of the sample that it was made from."""


@dataclass(frozen=True)
class Perturbed:
    """A changed sample.

    Attributes:
        sample: the sample, with an id of its own, and with `perturbation` and `perturbed_from` in its meta.
        tag: the type of the perturbation.
        keeps_answer: whether the answer is the old one; if not, it was worked out anew.
    """

    sample: Sample
    tag: str
    keeps_answer: bool


@dataclass(frozen=True)
class Refused:
    """Why a sample cannot be changed like this: a short name to count by."""

    reason: str


@part
class Perturbation(Part, ABC):
    """A change of a sample that keeps its answer, or works it out anew."""

    keeps_answer: ClassVar[bool] = True
    asks_teacher: ClassVar[bool] = False
    """Whether a model must be asked; see `AskedPerturbation`."""

    @abstractmethod
    def change(self, sample: Sample, draws: np.random.Generator) -> Sample | Refused:
        """The sample with another input, and with another target if the answer changes; nothing else is touched."""

    def perturb(self, sample: Sample, seed: int, variant: int = 0) -> Perturbed | Refused:
        """The changed sample; it hangs on the sample, the seed and the variant, and on nothing else.

        Args:
            sample: one with what is changed: a text (a conversation, a `text` or a `prompt`), a picture or a sound.
            seed: decides the draws, together with the sample's id.
            variant: one of several changed forms of a sample.
        """
        key = DrawKey(seed, variant)
        return self.tagged(sample, self.change(sample, key.draws(f"{self.type()}/{sample.id}", 0)), variant)

    def tagged(self, sample: Sample, changed: Sample | Refused, variant: int = 0) -> Perturbed | Refused:
        """What `change` gave, with an id and the tag; refused if nothing is different."""
        if isinstance(changed, Refused):
            return changed
        if _alike(changed.inputs, sample.inputs):
            return Refused("nothing_changed")
        tags = [sample.meta[TAG]] if TAG in sample.meta else []
        about = {TAG: "+".join([*tags, self.type()]), ORIGIN: sample.meta.get(ORIGIN, sample.id)}
        name = f"{sample.id}~{self.type()}" + (f"-{variant}" if variant else "")
        return Perturbed(replace(changed, id=name, meta={**changed.meta, **about}), self.type(), self.keeps_answer)


@part
class Graded(Perturbation, ABC):
    """A perturbation that comes in degrees."""

    severity: int = Field(default=1, ge=1, le=5)
    """How strong the change is, from 1 to 5."""


@part
class AskedPerturbation(Perturbation, ABC):
    """A perturbation that a model writes; asking it is left to others."""

    asks_teacher: ClassVar[bool] = True

    @abstractmethod
    def messages(self, sample: Sample) -> list[dict[str, str]]:
        """What the model is asked, {role, content} each."""

    @abstractmethod
    def read(self, sample: Sample, text: str) -> Sample | Refused:
        """The sample as the model's answer has it."""

    def perturbed(self, sample: Sample, text: str, variant: int = 0) -> Perturbed | Refused:
        """The changed sample, out of the model's answer."""
        return self.tagged(sample, self.read(sample, text), variant)

    def change(self, sample: Sample, draws: np.random.Generator) -> Sample | Refused:
        raise RecipeError(
            f"the perturbation '{self.type()}' needs a model that writes", fix="use it in `generate`, under `perturb`"
        )


def perturb_all(
    samples: Iterable[Sample], perturbations: Sequence[Perturbation], seed: int, variants: int = 1
) -> tuple[list[Perturbed], Counter[str]]:
    """Every sample changed in every way, and how many could not be, by perturbation and reason.

    Args:
        samples: the samples; they stay as they are.
        perturbations: each is done to the unchanged sample.
        seed: decides the draws.
        variants: changed forms of each sample by each perturbation. Where two come out alike, the later one is
            dropped and counted.
    """
    found: list[Perturbed] = []
    counts: Counter[str] = Counter()
    for sample in samples:
        for each in perturbations:
            made: list[Any] = []
            for variant in range(variants):
                result = each.perturb(sample, seed, variant)
                if isinstance(result, Refused):
                    counts[f"{each.type()}: {result.reason}"] += 1
                elif any(_alike(result.sample.inputs, other) for other in made):
                    counts[f"{each.type()}: repeated"] += 1
                else:
                    made.append(result.sample.inputs)
                    found.append(result)
    return found, counts


def _alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether inputs are the same; waveforms have no single answer to `==`."""
    if one.keys() != other.keys():
        return False
    pairs = ((value, other[name]) for name, value in one.items())
    return all(np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b for a, b in pairs)


def question_of(sample: Sample) -> str | None:
    """What is asked: the user's last turn, or the text; None where there is no text."""
    place = _place(sample)
    if place is None:
        return None
    name, turn = place
    value = sample.inputs[name]
    return str(value if turn is None else value[turn]["content"])


def asking(sample: Sample, text: str) -> Sample:
    """The same sample with another question."""
    place = _place(sample)
    assert place is not None, "a sample without a text has no question to replace"
    name, turn = place
    if turn is None:
        return replace(sample, inputs={**sample.inputs, name: text})
    turns = [dict(each) for each in sample.inputs[name]]
    turns[turn]["content"] = text
    return replace(sample, inputs={**sample.inputs, name: turns})


def rewritten(sample: Sample, change: Callable[[str], str]) -> Sample | Refused:
    """The sample with its question changed by a function of the text."""
    question = question_of(sample)
    return Refused("no_text") if question is None else asking(sample, change(question))


def _place(sample: Sample) -> tuple[str, int | None] | None:
    turns = sample.inputs.get("messages")
    if turns is not None:
        users = [i for i, turn in enumerate(turns) if isinstance(turn, Mapping) and turn.get("role") == "user"]
        return ("messages", users[-1]) if users else None
    return next(((name, None) for name in ("prompt", "text") if isinstance(sample.inputs.get(name), str)), None)
