"""What augmentations have in common: where their draws come from, and what they act on.

Shapes: C colours, H height, W width.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from limbeck.core.errors import RecipeError
from limbeck.core.parts import Part, part

SCHEME = 1
"""How draws are made from a key. A change of any draw raises it, so that old recordings are not taken for new ones."""

Matter = Literal["text", "tokens", "pixels"]
"""What an augmentation changes: a text, the tokens made of it, or a picture."""


@dataclass(frozen=True)
class DrawKey:
    """What decides a draw, besides the sample: nothing else does.

    So a resumed run repeats every draw, and neither micro-batches nor the number of processes change one.

    Attributes:
        seed: the run's.
        step: the optimizer step, counted over the whole run.
        view: which of a sample's views it is, where a batch holds several.
    """

    seed: int
    step: int
    view: int = 0

    def name(self, sample: str) -> str:
        """The key of a sample's draw in words; a recorded signal is found by it."""
        return f"{SCHEME}/{self.seed}/{self.step}/{self.view}/{sample}"

    def draws(self, sample: str, place: int) -> np.random.Generator:
        """The random numbers of one sample for the augmentation at a place in the stage's list."""
        digest = hashlib.blake2b(f"{place}/{self.name(sample)}".encode(), digest_size=16).digest()
        return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "big")))


@part
class Augmentation(Part, ABC):
    """A random change of samples, drawn anew in every step."""

    probability: float = Field(default=1.0, ge=0, le=1)
    """Share of the samples that are changed."""

    matter: ClassVar[Matter]
    replayable: ClassVar[bool] = True
    """Whether the same key always gives the same change; only then may a recorded teacher be used."""

    def happens(self, draws: np.random.Generator) -> bool:
        """Whether a sample is changed; takes one number of its draws."""
        return bool(draws.random() < self.probability)


@part
class TextAugmentation(Augmentation, ABC):
    """Changes a text before it is tokenized."""

    matter: ClassVar[Matter] = "text"

    @abstractmethod
    def text(self, text: str, draws: np.random.Generator) -> str:
        """The changed text.

        Raises:
            MissingExtra: a library that it needs is not installed.
        """


@part
class TokenAugmentation(Augmentation, ABC):
    """Changes which tokens of a text there are, and their order; special tokens stay where they are."""

    matter: ClassVar[Matter] = "tokens"

    @abstractmethod
    def tokens(self, places: Sequence[int], draws: np.random.Generator) -> list[int]:
        """What becomes of one text between two special tokens.

        Args:
            places: where its tokens stand, at least one.
            draws: random numbers.

        Returns:
            The places of the tokens that remain, at least one, in their new order.
        """


@part
class PixelAugmentation(Augmentation, ABC):
    """Changes one picture."""

    matter: ClassVar[Matter] = "pixels"

    @abstractmethod
    def pixels(self, pixels_CHW: np.ndarray, draws: np.random.Generator) -> np.ndarray:
        """The changed picture.

        Args:
            pixels_CHW: float32, 0 (black) to 1; not to be changed in place.
            draws: random numbers.

        Returns:
            The same shape.

        Raises:
            RecipeError: the augmentation does not fit pictures like this one.
        """


@dataclass(frozen=True)
class Blending:
    """How a picture takes in a part of another one.

    Attributes:
        share: how much of the other one there is, 0 to 1.
        box: the part of the picture that is replaced, (top, bottom, left, right); None: both shine through.
    """

    share: float
    box: tuple[int, int, int, int] | None = None


@part
class BlendAugmentation(Augmentation, ABC):
    """Makes one picture out of two, with both labels.

    The other one is drawn from the whole step's batch, whichever process holds it, so micro-batches and processes
    change nothing. A picture takes part in at most one blending: of several, the first that is drawn for it.
    """

    matter: ClassVar[Matter] = "pixels"

    @abstractmethod
    def blending(self, height: int, width: int, draws: np.random.Generator) -> Blending:
        """How a picture of this size is blended."""


def partners(count: int, draws: np.random.Generator) -> np.ndarray:
    """Whom each sample of a step is blended with: one random round through all, so nobody meets itself, [count]."""
    round_trip = draws.permutation(count)
    other = np.empty(count, dtype=np.int64)
    other[round_trip] = np.roll(round_trip, 1)
    return other


def refuse_disorder(augmentations: Sequence[Augmentation]) -> None:
    """Raise unless what acts on text comes before what acts on tokens, and blending comes last.

    Raises:
        RecipeError: the order in the recipe is not the order in which they can be done.
    """
    stages = [_stage(each) for each in augmentations]
    for before, after, one, other in zip(stages, stages[1:], augmentations, augmentations[1:], strict=False):
        if before > after:
            raise RecipeError(
                f"the augmentation '{other.type()}' stands after '{one.type()}', but is done before it",
                allowed="texts first, then tokens; single pictures first, then blended ones",
                fix=f"put {other.type()} before {one.type()}",
            )


def _stage(augmentation: Augmentation) -> int:
    return 0 if augmentation.matter == "text" else 2 if isinstance(augmentation, BlendAugmentation) else 1
