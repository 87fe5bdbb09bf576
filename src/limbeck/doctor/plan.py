"""What checks of a recipe may look at: rows, codecs, and models without weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from limbeck.core.recipe import Model, Recipe, Stage, Student, Teacher
from limbeck.data.dataset import Splits
from limbeck.tasks import Codec, Encoded

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Read:
    """A model of the recipe as far as it can be known without its weights.

    Attributes:
        name: `student`, `teacher`, `teacher-2`, ...
        spec: its section.
        codec: makes its batches.
        model: on the device `meta`; None where the code of the model comes with it, and is not run here.
        is_exact: whether the trained model will be just this large; one that is cut from its teacher may be smaller.
    """

    name: str
    spec: Student | Teacher
    codec: Codec
    model: PreTrainedModel | None
    is_exact: bool = True


@dataclass(frozen=True)
class Probe:
    """What a few steps took.

    Attributes:
        seconds: by stage, the mean time of a step; the teacher's fine-tuning is `finetune` or what it is called.
        steps: how many were made in each stage.
        device: where.
    """

    seconds: dict[str, float]
    steps: int
    device: str


@dataclass(frozen=True)
class Writing:
    """What a data stage will cost.

    Attributes:
        stage: its name.
        model: who writes.
        requests: how many there are.
        tokens: of prompts and answers, at most.
        cost: money at most; None where nothing is paid.
        currency: of the money.
    """

    stage: str
    model: str
    requests: int
    tokens: int
    cost: float | None
    currency: str | None


def called(reader: Read, stage: Stage) -> str:
    """A stage's name among all: further teachers' stages are called as the first one's is."""
    return stage.name if reader.name in ("student", "teacher") else f"{reader.name} {stage.name}"


class Plan(ABC):
    """A recipe that is about to be run. Everything is read when it is first asked for.

    Attributes:
        recipe: it.
    """

    recipe: Recipe

    @property
    @abstractmethod
    def probe(self) -> Probe | None:
        """What a few steps took; None if none were asked for."""

    @abstractmethod
    def check(self) -> None:
        """The checks that a run makes itself before its first step.

        Raises:
            LimbeckError: the run would fail.
        """

    @property
    @abstractmethod
    def splits(self) -> Splits:
        """The recipe's rows."""

    @property
    @abstractmethod
    def student(self) -> Read:
        """The student."""

    @property
    @abstractmethod
    def teachers(self) -> Sequence[Read]:
        """The teachers that have weights here; none for a moving average or an endpoint."""

    @abstractmethod
    def encoded(self, stage: Stage, reader: Read) -> Encoded:
        """A stage's training rows as a model reads them."""

    @abstractmethod
    def steps(self, stage: Stage) -> int:
        """Optimizer steps of a stage."""

    @abstractmethod
    def writing(self) -> list[Writing]:
        """What the data stages will cost; nothing is asked for this."""

    @property
    def trained(self) -> list[tuple[Read, Stage]]:
        """Everything that is trained, with who learns: the teachers' fine-tuning, then the stages."""
        own = [(r, r.spec.finetune) for r in self.teachers if isinstance(r.spec, Teacher) and r.spec.finetune]
        return [*own, *((self.student, stage) for stage in self.recipe.stages)]

    @property
    def models(self) -> list[tuple[str, Model]]:
        """Sections that name a model with weights."""
        teacher = self.recipe.teacher
        found: list[tuple[str, Model]] = [("student", self.recipe.student)]
        found += [("teacher", each) for each in ([teacher, *teacher.also] if teacher else [])]
        return [(n, each) for n, each in found if each.model not in (None, "from-teacher", "moving-average")]
