"""A runner: arrays in, arrays out, whatever engine multiplies them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True)
class Tensors:
    """What goes in or comes out under one name.

    Attributes:
        dtype: numpy's name of the type: int64, float32.
        shape: sizes; None where any size fits. The first one is the row.
    """

    dtype: str
    shape: tuple[int | None, ...]


class Runner(ABC):
    """A model in an engine. Its `run` may be called by one thread at a time.

    Attributes:
        engine: torch, onnxruntime or another's name.
        device: what it computes on: cpu or cuda.
        inputs: what `run` takes, by name.
        outputs: what it gives, by name; classifiers give `logits`, float32 of shape (rows, classes).
    """

    engine: str
    device: str = "cpu"
    inputs: Mapping[str, Tensors]
    outputs: Mapping[str, Tensors]

    @abstractmethod
    def run(self, inputs: Arrays) -> dict[str, NDArray[np.generic]]:
        """The outputs for a batch.

        Args:
            inputs: by name, all with the same number of rows; names that the model does not take are left aside.

        Raises:
            ModelError: an input is missing, or of another type or shape than `inputs` says.
        """
