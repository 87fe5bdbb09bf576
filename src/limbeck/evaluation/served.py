"""A student in another engine, measured beside models in torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from limbeck.core.errors import ModelError
from limbeck.core.types import Batch, Dense
from limbeck.runtime.card import CARD, read_card, weights_in
from limbeck.runtime.student import ServedStudent, load_student


class ServedModel(torch.nn.Module):
    """A classifier that ONNX Runtime or OpenVINO runs, evaluated like a model in torch that has no parameters.

    It can be asked and timed, and its files can be weighed; what is inside of it cannot be looked into.

    Args:
        folder: a student's, with a card.
        threads: of one request, as many as the models have that it is compared with.

    Attributes:
        student: the student.
        engine: what runs it.

    Raises:
        ModelError: it cannot be loaded, or is no classifier.
        MissingExtra: its engine is not installed.
    """

    def __init__(self, folder: Path, threads: int):
        super().__init__()
        self.folder = folder
        self.load: Callable[[], ServedStudent] = lambda: load_student(folder, threads=threads)
        if read_card(folder).labels is None:
            what = f"the language model in {folder} is of a format that cannot be measured beside others"
            raise ModelError(what, allowed="classifiers", fix="measure the student that it was made from")
        self.student = self.load()
        self.engine = self.student.runner.engine

    def forward(self, batch: Batch) -> Dense:
        """What the student says of a batch."""
        arrays = {name: x.numpy() for name, x in batch.inputs.items()}
        return Dense(torch.from_numpy(self.student.runner.run(arrays)["logits"]))

    def stored_bytes(self) -> int:
        """Bytes of the files with its weights."""
        return sum(file.stat().st_size for file in weights_in(self.folder, self.student.card))


def is_served(folder: Path) -> bool:
    """Whether a folder's student is for another engine than torch."""
    return (folder / CARD).is_file() and read_card(folder).format != "pytorch"
