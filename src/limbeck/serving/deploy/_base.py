"""What every deployment is: from a student's folder to the files of those who will run it."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from limbeck.core.errors import ModelError
from limbeck.core.parts import Part, part
from limbeck.runtime.card import Card

NAME = r"^[a-z0-9]([a-z0-9-]{0,48}[a-z0-9])?$"
"""What Docker, Kubernetes and Triton all take as a name."""
MEMORY = r"^[1-9][0-9]*[MG]i$"
EXTRAS = {"pytorch": "serve", "onnx": "serve,onnx", "openvino": "serve,openvino"}
"""Of limbeck, by the format of the student that is served."""
USER = 10001
"""Nobody's number, so that a server owns nothing on the machine that it runs on."""


@dataclass(frozen=True)
class Written:
    """What a deployment has written.

    Attributes:
        facts: of it, for the manifest.
        notes: what is left to whoever deploys it.
    """

    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@part
class Deployment(Part, ABC):
    """A student in a place where it is to be served."""

    # `kw_only` anew: pydantic forgets it of fields that a part inherits from another part.

    name: str | None = Field(default=None, kw_only=True, pattern=NAME)
    """The model's name. Left out: that of the folder which is deployed, in small letters."""

    engine: ClassVar[str] = "auto"
    """What runs the student there; of a run that has it in several formats, it chooses one."""

    @abstractmethod
    def write(self, student: Path, card: Card, name: str, folder: Path) -> Written:
        """Write the files.

        Args:
            student: its folder.
            card: the student's.
            name: of the model.
            folder: to write into, empty.

        Raises:
            ModelError: it cannot be deployed there.
        """

    def depends(self, card: Card) -> Mapping[str, Any]:
        """What the files hang on beside the student and the deployment's fields."""
        return {}

    def check(self, card: Card) -> None:
        """Make sure before any work that a student can be served there.

        Args:
            card: the student's.

        Raises:
            ModelError: it cannot.
        """
        if card.labels is None:
            what = f"{self.type()} takes classifiers"
            raise ModelError(what, got=str(card.task["type"]), fix="docs/serve.md tells how language models are served")
        if card.format not in EXTRAS:
            raise ModelError(f"{self.type()} takes no student in the format {card.format}", allowed=", ".join(EXTRAS))

    def named(self, folder: Path) -> str:
        """The model's name.

        Args:
            folder: that is deployed.

        Raises:
            ModelError: no name can be made of the folder's.
        """
        if self.name is not None:
            return self.name
        made = re.sub(r"[^a-z0-9]+", "-", folder.resolve().name.lower()).strip("-")
        if not re.fullmatch(NAME, made):
            fix = f"--for '{{type: {self.type()}, name: ...}}'"
            raise ModelError("the folder's name is no name for a model", got=folder.resolve().name, fix=fix)
        return made


def words(name: str, place: str, *, port: int, threads: int, token: str) -> list[str]:
    """What `limbeck serve` is told in a container.

    Args:
        name: of the model.
        place: of its folder.
        port: of HTTP.
        threads: as many as the container has processors: engines count those of the machine.
        token: the file with it.
    """
    return [
        f"{name}={place}",
        *("--host", "0.0.0.0"),
        *("--port", str(port)),
        *("--threads", str(threads)),
        *("--token-file", token),
        *("--drain", "20"),
    ]
