"""A student with some optimizations: what it says, what it costs to ask it, and how it is kept.

Shapes: N rows, C classes or vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limbeck.core.types import Sample
from limbeck.exporters._base import copy_beside
from limbeck.exporters._graph import save, without_traces
from limbeck.exporters._parity import compare, spread
from limbeck.exporters._traced import traceable
from limbeck.exporters.onnx import FILE, graph_from
from limbeck.optimization._base import Optimization, Subject
from limbeck.runtime._checks import file_inside
from limbeck.runtime.card import Card, weights_in
from limbeck.runtime.onnx_runner import OnnxRunner, check_weights_inside
from limbeck.runtime.student import ServedStudent, codec_of

if TYPE_CHECKING:
    import onnx
    from transformers import PreTrainedModel

ROUNDED = 0.02
"""The largest difference that a student of integers is let pass, as a share of the largest logit."""


@dataclass(frozen=True)
class Likeness:
    """How alike the answers of two forms are.

    Attributes:
        max_difference: between two logits.
        relative: the same as a share of the largest logit.
        same_answers: share of rows, or of new tokens, with the same class or token.
        answers: how many were compared.
    """

    max_difference: float
    relative: float
    same_answers: float
    answers: int

    def passes(self, each: Optimization, rounded: bool = False) -> bool:
        """Whether a pass may change that much.

        Args:
            each: the pass.
            rounded: the student computes with integers, where another last digit may become another integer.
        """
        most = ROUNDED if rounded and each.most is not None else each.most
        return (most is None or self.relative <= most) and self.same_answers >= each.least


@dataclass(frozen=True)
class Cost:
    """What a form takes, where that can be counted rather than timed.

    Attributes:
        operators: of a graph, those that ONNX Runtime executes; in torch, those of one new token; None if compiled.
        launches: kernels that a GPU starts for one new token; None without a GPU.
        bytes: of the weights.
        cache_bytes: of keys and values when a batch of answers is whole; None where there are none.
    """

    operators: int | None
    launches: int | None
    bytes: int
    cache_bytes: int | None


class Form(ABC):
    """A student with optimizations, ready to be asked.

    Args:
        subject: the student.
        passes: in their order.

    Attributes:
        steps: tokens that a request makes in turn; 1 for graphs.
    """

    steps = 1

    def __init__(self, subject: Subject, passes: Sequence[Optimization]):
        self.subject, self.passes = subject, tuple(passes)

    @abstractmethod
    def readable(self, samples: Sequence[Sample], count: int) -> list[Sample]:
        """So many of the rows that the student can read, from the shortest to the longest, in their order."""

    @abstractmethod
    def request(self, rows: Sequence[Sample], size: int) -> Callable[[int], Any]:
        """What answers request number i: so many rows together, in turns."""

    @abstractmethod
    def likeness(self, reference: Form, rows: Sequence[Sample]) -> Likeness:
        """How alike its answers and another form's are."""

    @abstractmethod
    def cost(self, rows: Sequence[Sample]) -> Cost:
        """What can be counted when it answers these rows together."""

    @abstractmethod
    def save(self, folder: Path) -> Card:
        """Write it as a folder that `load_student`, or `load_writer`, loads; the card is the caller's to write."""


class GraphForm(Form):
    """A student as a graph in ONNX Runtime, on one thread.

    Args:
        subject: the student.
        passes: in their order.
        scratch: takes the graph.
    """

    def __init__(self, subject: Subject, passes: Sequence[Optimization], scratch: Path):
        super().__init__(subject, passes)
        scratch.mkdir(parents=True, exist_ok=True)
        self.path, self.device = scratch / FILE, subject.device.type
        model = _graph(subject, self.passes)
        self.opset = int(model.opset_import[0].version)
        save(model, self.path)
        runner = OnnxRunner(self.path, threads=1, device=self.device)
        self.served = ServedStudent(subject.card, codec_of(subject.folder, subject.card), runner)

    def readable(self, samples: Sequence[Sample], count: int) -> list[Sample]:
        known = self.served.with_targets(samples)
        features, by_id = self.served.codec.encode(known).features, {each.id: each for each in known}
        return [by_id[features[i].id] for i in spread(features, count)]

    def request(self, rows: Sequence[Sample], size: int) -> Callable[[int], Any]:
        batches = [self.served.encode(each) for each in in_batches(rows, size)]
        return lambda i: self.served.logits(batches[i % len(batches)])

    def likeness(self, reference: Form, rows: Sequence[Sample]) -> Likeness:
        assert isinstance(reference, GraphForm), "both are graphs"
        found = compare(reference.served, self.served, rows)
        return Likeness(found.max_difference, found.relative, found.same_answers, found.answers)

    def cost(self, rows: Sequence[Sample]) -> Cost:
        files = self.path.parent.glob(f"{FILE}*")
        return Cost(executed(self.path, self.device), None, sum(each.stat().st_size for each in files), None)

    def save(self, folder: Path) -> Card:
        card = self.subject.card
        copy_beside(self.subject.folder, folder, card)
        for each in self.path.parent.glob(f"{FILE}*"):
            (folder / each.name).write_bytes(each.read_bytes())
        return replace(card, format="onnx", file=FILE, facts={"opset": self.opset})


def _graph(subject: Subject, passes: Sequence[Optimization]) -> onnx.ModelProto:
    import onnx

    if subject.model is None:
        path = file_inside(subject.folder, subject.card.file, "the card")
        check_weights_inside(path)
        model = onnx.load(path)
    else:

        def change(given: PreTrainedModel) -> None:
            for each in passes:
                each.module(given)

        attention = next((each.attention for each in passes if each.attention != "eager"), "eager")
        given = traceable(subject.folder, subject.card, attention=attention, change=change)
        model = graph_from(given, max(Optimization.opset, *(each.opset for each in passes), 0))
        without_traces(model)
    for each in passes:
        model = each.graph(model, subject)
    return model


def executed(path: Path, device: str) -> int:
    """The operators that ONNX Runtime executes of a graph, after all of its own rewriting.

    Args:
        path: of the graph.
        device: cpu or cuda.
    """
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    after = path.with_name(f".{path.name}.executed")
    options.optimized_model_filepath = str(after)
    wanted = [*(["CUDAExecutionProvider"] if device == "cuda" else []), "CPUExecutionProvider"]
    onnxruntime.InferenceSession(str(path), options, providers=wanted)
    count = len(onnx.load(after, load_external_data=False).graph.node)
    after.unlink()
    return count


def in_batches(rows: Sequence[Sample], size: int) -> list[list[Sample]]:
    """Rows in batches of one size; the last one begins again from the first row."""
    return [[rows[k % len(rows)] for k in range(i, i + size)] for i in range(0, len(rows), size)]


def weights(subject: Subject) -> int:
    """Bytes of a student's weights."""
    return sum(each.stat().st_size for each in weights_in(subject.folder, subject.card))
