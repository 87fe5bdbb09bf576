"""What every exporter is: from a student's folder to a folder in another format, and how much it may change."""

from __future__ import annotations

import importlib.util
import shutil
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from limbeck.core.artifacts import MANIFEST, write_json
from limbeck.core.errors import MissingExtra, ModelError
from limbeck.core.parts import Part, part
from limbeck.runtime.card import CARD, Card
from limbeck.runtime.student import ServedStudent, codec_of, runner_of

_BESIDE = (".json", ".txt", ".model", ".jinja")
"""How the files end that lie beside weights: config, tokenizer or preprocessor, templates."""
LABELS = "labels.json"
"""The classes of a classifier, a list in the order of its logits."""


@dataclass(frozen=True)
class Tool:
    """A package that an exporter cannot do without.

    Attributes:
        package: as it is imported.
        extra: limbeck's extra that brings it.
    """

    package: str
    extra: str


@part
class Exporter(Part, ABC):
    """A student in another format."""

    # `kw_only` anew: pydantic forgets it of fields that a part inherits from another part.

    name: str | None = Field(default=None, kw_only=True, pattern=r"^\w[\w.-]*$")
    """The folder's name below `export`. Left out: the format's own."""
    max_difference: float | None = Field(default=None, kw_only=True, gt=0)
    """The most that a logit may differ from the student's on real rows, as a share of the largest one. Left out:
    0.001, and with lower precision anything."""
    same_answers: float | None = Field(default=None, kw_only=True, ge=0, le=1)
    """The least share of rows, or of next tokens, with the student's own answer. Left out: 0.99, with lower
    precision 0.97."""

    tasks: ClassVar[tuple[str, ...]] = ("text_classification", "image_classification", "causal_lm")
    """Types of tasks whose students it takes."""
    tools: ClassVar[tuple[Tool, ...]] = ()
    """What must be installed."""
    takes: ClassVar[tuple[str, ...]] = ("pytorch",)
    """Formats that it starts from."""
    runs_here: ClassVar[bool] = True
    """Whether `limbeck.runtime` runs the result; if not, it is loaded back by the format's own tool, to be compared."""

    @property
    def folder(self) -> str:
        """The name of its artifact."""
        return self.name or self.type()

    @property
    def exact(self) -> bool:
        """Whether the weights keep their precision, so that figures must stay as they are."""
        return getattr(self, "precision", "fp32") in ("fp32", "same")

    @property
    def most(self) -> float | None:
        """The largest difference that is let pass; None: any."""
        return self.max_difference if self.max_difference is not None else 1e-3 if self.exact else None

    @property
    def least(self) -> float:
        """The smallest share of same answers that is let pass."""
        return self.same_answers if self.same_answers is not None else 0.99 if self.exact else 0.97

    def check(self, card: Card) -> None:
        """Make sure before any work that a student can be exported like this.

        Args:
            card: the student's.

        Raises:
            ModelError: its task or its format is another.
            MissingExtra: a tool is not installed.
        """
        task = str(card.task["type"]).replace("-", "_")
        if task not in self.tasks:
            raise ModelError(f"{self.type()} takes no {task} students", allowed=", ".join(self.tasks))
        if card.format not in self.takes:
            what = f"{self.type()} does not start from a student in the format {card.format}"
            raise ModelError(what, allowed=", ".join(self.takes), fix="export the student as it was trained")
        for tool in self.tools:
            if importlib.util.find_spec(tool.package) is None:
                raise MissingExtra(f"exporting to {self.type()} ({tool.package})", tool.extra)

    @abstractmethod
    def export(self, student: Path, folder: Path, card: Card) -> Card:
        """Write the student into a folder that is empty, all but its card.

        Args:
            student: its folder.
            folder: to write into.
            card: the student's own.

        Returns:
            The card of what was written.

        Raises:
            ModelError: the tool cannot do it.
        """

    def load(self, folder: Path, card: Card) -> ServedStudent:
        """What was written, loaded back to be compared with the student, on one thread where that can be chosen.

        Raises:
            ModelError: it cannot be loaded.
        """
        codec = codec_of(folder, card)
        return ServedStudent(card, codec, runner_of(folder, card, codec, threads=1))


def copy_beside(student: Path, folder: Path, card: Card) -> None:
    """Copy what lies beside the weights: config, tokenizer or preprocessor; and write the labels."""
    for path in sorted(student.iterdir()):
        beside = path.suffix in _BESIDE and not path.name.endswith((".index.json", MANIFEST, CARD))
        if beside and path.is_file():
            shutil.copyfile(path, folder / path.name)
    if card.labels is not None:
        write_json(folder / LABELS, list(card.labels))
