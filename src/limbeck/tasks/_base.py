"""What a task decides: how rows become samples, samples batches, and which class of model it takes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from limbeck.core.errors import RecipeError
from limbeck.core.parts import Part, part
from limbeck.core.types import Batch, Sample
from limbeck.data.augmentation import Augmentation, DrawKey, Matter

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

    from limbeck.core.recipe import Model


@dataclass(frozen=True)
class Feature:
    """A sample in numbers.

    Attributes:
        id: the sample's id.
        length: what it costs in a batch (tokens; 1 where all are alike).
        values: what `Codec.collate` needs.
        source: the sample itself: augmentation may act on it before it is encoded, and mixtures and curricula ask
            it what it is.
    """

    id: str
    length: int
    values: Mapping[str, Any]
    source: Sample | None = None


@dataclass(frozen=True)
class Encoded:
    """Samples in numbers, what was lost on the way, counted by reason, and what else a manifest should say of them."""

    features: list[Feature]
    counts: Counter[str] = field(default_factory=Counter)
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.features)


class Codec(ABC):
    """A task bound to a tokenizer or image processor: samples -> features -> batch.

    Attributes:
        processor: the tokenizer or image processor, saved beside the student.
        label_names: the classes, by index; None for language models.
        augments: what augmentations of its samples may act on.
    """

    processor: Any
    label_names: tuple[str, ...] | None = None
    augments: ClassVar[frozenset[Matter]] = frozenset()

    @abstractmethod
    def encode(self, samples: Iterable[Sample]) -> Encoded:
        """All samples in numbers, in order; what cannot be used is dropped and counted."""

    @abstractmethod
    def collate(self, features: Sequence[Feature]) -> Batch:
        """One padded batch."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Config fields that a model for these samples must have."""

    def prepare(self, model: PreTrainedModel) -> Codec:
        """Fit a model that is about to be trained: new tokens, say.

        Returns:
            The codec to train and to save it with; most tasks change nothing.

        Raises:
            ModelError: the model cannot be trained on this task.
        """
        return self

    def augmented(
        self, features: Sequence[Feature], augmentations: Sequence[Augmentation], key: DrawKey
    ) -> list[Feature]:
        """The same samples, changed at random; a sample's change depends on the key and its id alone.

        Args:
            features: as `encode` made them; they stay as they are.
            augmentations: what is done, in order; blending is not among them.
            key: decides the draws.

        Raises:
            RecipeError: samples of this task cannot be changed like this.
        """
        raise RecipeError("samples of this task cannot be augmented", got=", ".join(a.type() for a in augmentations))

    def save(self, folder: Path) -> None:
        """Write the processor beside a model."""
        self.processor.save_pretrained(folder)


@part
class Task(Part, ABC):
    """What is to be learned, told apart by the shape of its answers."""

    roles: ClassVar[Mapping[str, bool]]
    """What columns may mean, and whether each must be there."""
    auto_class: ClassVar[str]
    """transformers' class of its models."""
    unit: ClassVar[str]
    """What training counts: tokens or samples."""

    @abstractmethod
    def read(self, fields: Mapping[str, Any], where: str) -> tuple[dict[str, Any], Any, dict[str, Any]]:
        """Inputs, target and meta of a row; `where` names the row in errors.

        Raises:
            DataError: a value is missing or of the wrong kind.
        """

    @abstractmethod
    def load_processor(self, name: str, *, revision: str | None, trust_remote_code: bool) -> Any:
        """The tokenizer or image processor stored under a hub name or in a folder.

        Raises:
            ModelError: there is none.
        """

    @abstractmethod
    def new_processor(self, spec: Model, samples: Sequence[Sample]) -> Any:
        """A processor for a model made from a config.

        Raises:
            ModelError: the recipe must name one.
        """

    @abstractmethod
    def codec(self, processor: Any, label_names: tuple[str, ...] | None) -> Codec:
        """The task bound to a processor."""

    @abstractmethod
    def same_reading(self, one: Any, other: Any) -> bool:
        """Whether two processors turn a sample into the same numbers."""


def label_settings(names: Sequence[str]) -> dict[str, Any]:
    """A classifier's config fields for its classes."""
    return {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}


def class_names(config: PretrainedConfig) -> tuple[str, ...]:
    """A classifier's classes in the order of their indices, which a file may keep in another."""
    return tuple(str(name) for _, name in sorted((config.id2label or {}).items(), key=lambda pair: int(pair[0])))
