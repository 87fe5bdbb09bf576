"""What every compressor is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from limbeck.core.parts import Part, part
from limbeck.core.recipe.compress import Tolerance
from limbeck.runtime import Arrays


@part
class Compressor(Part, ABC):
    """Makes a student smaller that is already trained.

    Attributes:
        precision: what its card says of the weights.
    """

    keep: tuple[str, ...] = ()
    """Layers that stay as they are, by name, with `*`: `classifier`, `*.attention.*`."""
    tolerance: Tolerance = Tolerance()
    """What the compressed student is held to."""
    calibration_samples: int = Field(default=256, gt=0)
    """Training rows by which ranges are found where they are needed, drawn by the data's seed."""
    sensitivity: bool = False
    """Also compress every layer alone, and write down how much each suffers; a refusal does so in any case."""

    precision: ClassVar[str]

    @abstractmethod
    def compress(
        self, source: Path, target: Path, rows: Sequence[Arrays], *, only: str | None = None
    ) -> Mapping[str, Any]:
        """Write the smaller student.

        Args:
            source: an ONNX file of the student.
            target: takes the compressed one.
            rows: batches of training rows, by which ranges are found where they are needed.
            only: the one layer that is compressed; None: all that are not kept.

        Returns:
            What the manifest should tell.

        Raises:
            RecipeError: `keep` names a layer that is not there.
            ModelError: nothing in the student can be compressed.
        """
