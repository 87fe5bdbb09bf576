"""A trained student beside what becomes of it when it is compressed: both answer the same rows.

Shapes: N rows, C classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from limbeck.compression import Compressor
from limbeck.compression._sensitivity import Hurt, sensitivity
from limbeck.core.parts import config_of
from limbeck.core.types import Sample
from limbeck.data.draw import subsample
from limbeck.evaluation.book import Book
from limbeck.evaluation.metrics.calibration import temperature_of
from limbeck.evaluation.statistics import mean
from limbeck.exporters._base import copy_beside
from limbeck.exporters._graph import save
from limbeck.exporters.onnx import FILE, graph_of
from limbeck.pipeline._gate import Verdict, judge
from limbeck.pipeline._job import RunJob
from limbeck.runtime import Arrays
from limbeck.runtime.card import Card
from limbeck.runtime.onnx_runner import OnnxRunner
from limbeck.runtime.student import ServedStudent, codec_of, runner_of
from limbeck.tasks import Feature

OPSET = 21
"""Of the graph that is compressed."""
BATCH = 16
"""Rows at a time, for calibration and comparison."""
COMPARED = 256
"""Rows by which it is told how much a layer suffers."""

Floats = NDArray[np.float32]


class Bench(ABC):
    """A trained student, as a graph that is compressed and as what the compressed ones are compared with.

    Args:
        job: the run.
        part: how it is compressed.
        trained: its folder.
        held: the rows of the comparison.
        scratch: takes graphs that are thrown away.

    Attributes:
        card: of the student as it was trained.
        source: it as an ONNX file.
        calibration: training rows for ranges, in batches.
        whole: what it says of the rows.
    """

    source: Path
    calibration: Sequence[Arrays]
    whole: Any

    def __init__(self, job: RunJob, part: Compressor, trained: Path, held: Sequence[Sample], scratch: Path):
        self.job, self.part, self.trained, self.scratch = job, part, trained, scratch
        scratch.mkdir(exist_ok=True)
        self.card = Card(task=config_of(job.task), labels=job.label_names)
        self._prepare(held)

    @abstractmethod
    def _prepare(self, held: Sequence[Sample]) -> None:
        """Make the graph, and ask the trained student."""

    @abstractmethod
    def lay_beside(self, target: Path) -> None:
        """Copy what a compressed student's folder has besides the graph."""

    @abstractmethod
    def ask(self, target: Path) -> Any:
        """What the compressed student in a folder says of the rows."""

    @abstractmethod
    def judge(self, now: Any) -> Verdict:
        """Hold what it says against what the trained one said."""

    @abstractmethod
    def card_after(self, now: Any) -> Card:
        """The compressed student's card."""

    @abstractmethod
    def score(self, book: Book, model: str, said: Any) -> None:
        """Write down how good answers are."""

    @abstractmethod
    def logits(self, path: Path) -> Floats:
        """What a graph says of some of the rows, by which layers are compared, [N, C]."""

    def suffering(self) -> list[Hurt]:
        """How much each layer alone suffers, the worst first."""
        return sensitivity(self.part, self.source, self.scratch, self.calibration, self.logits)


class ClassifierBench(Bench):
    """A classifier.

    Attributes:
        targets: what is right, [N].
    """

    whole: Floats

    def _prepare(self, held: Sequence[Sample]) -> None:
        self.source = self.scratch / FILE
        self.codec = codec_of(self.trained, self.card)
        student = ServedStudent(self.card, self.codec, runner_of(self.trained, self.card, self.codec, "torch"))
        self.features = student.encode(held)
        self.targets = np.array([feature.values["label"] for feature in self.features])
        self.whole = _logits(student, self.features)
        save(graph_of(self.trained, self.card, OPSET), self.source)
        rows = student.encode(drawn(self.job.splits.train, self.part.calibration_samples, self.job.recipe.data.seed))
        known = OnnxRunner(self.source).inputs
        batches = [student.arrays([rows[i] for i in places]) for places in _batches(rows)]
        self.calibration = [{name: x for name, x in arrays.items() if name in known} for arrays in batches]

    def lay_beside(self, target: Path) -> None:
        copy_beside(self.trained, target, self.card)

    def ask(self, target: Path) -> Floats:
        return self._asked(target / FILE, None)

    def logits(self, path: Path) -> Floats:
        return self._asked(path, COMPARED)

    def _asked(self, path: Path, rows: int | None) -> Floats:
        return _logits(ServedStudent(self.card, self.codec, OnnxRunner(path)), self.features[:rows])

    def judge(self, now: Floats) -> Verdict:
        was, said = self.whole.argmax(1), now.argmax(1)
        return judge(self.part.tolerance, was == self.targets, said == self.targets, was == said)

    def card_after(self, now: Floats) -> Card:
        temperature = temperature_of(softmax(now.astype(np.float64), axis=1), self.targets)
        return replace(self.card, format="onnx", precision=self.part.precision, file=FILE, temperature=temperature)

    def score(self, book: Book, model: str, said: Floats) -> None:
        right = said.argmax(1) == self.targets
        book.estimate(model, "accuracy", "accuracy", "share", mean, right.astype(float))


def drawn(samples: Sequence[Sample], most: int | None, seed: int) -> list[Sample]:
    """So many of the samples, in their order."""
    count = len(samples)
    return [samples[i] for i in subsample(range(count), count if most is None else most, count=count, seed=seed)]


def _batches(features: Sequence[Feature]) -> list[list[int]]:
    """Places of rows of like length, the longest first."""
    order = sorted(range(len(features)), key=lambda i: -features[i].length)
    return [order[i : i + BATCH] for i in range(0, len(order), BATCH)]


def _logits(student: ServedStudent, features: Sequence[Feature]) -> Floats:
    """What a student says of all rows, [N, C], in their order."""
    places = _batches(features)
    said = np.concatenate([student.logits([features[i] for i in each]) for each in places])
    back = np.empty_like(said)
    back[np.concatenate(places)] = said
    return back
