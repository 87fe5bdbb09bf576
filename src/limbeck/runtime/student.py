"""A student that is ready to be asked: its card, the task's codec, and an engine that runs it.

Shapes: N rows, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from limbeck.core.errors import DataError, ModelError, RecipeError
from limbeck.core.parts import build
from limbeck.core.recipe import Model
from limbeck.core.types import Sample
from limbeck.models.load import load_model
from limbeck.runtime._base import Runner
from limbeck.runtime._checks import file_inside
from limbeck.runtime.card import Card
from limbeck.runtime.decoding import decoding_of
from limbeck.runtime.example import example, signature
from limbeck.runtime.guess import card_of, student_folder
from limbeck.tasks import Codec, Feature, Task

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Answer:
    """What a classifier says of one row.

    Attributes:
        label: the likeliest class.
        confidence: its probability, calibrated by the card's temperature.
        probabilities: of every class, [C], in the order of the labels.
    """

    label: str
    confidence: float
    probabilities: Floats


class ServedStudent:
    """A classifier, or a language model's logits, whatever engine multiplies them.

    Args:
        card: how it is asked.
        codec: turns rows into numbers.
        runner: turns numbers into logits.

    Attributes:
        labels: the classes by index; empty for language models.
    """

    def __init__(self, card: Card, codec: Codec, runner: Runner):
        self.card, self.codec, self.runner = card, codec, runner
        self.labels: tuple[str, ...] = codec.label_names or ()
        assert card.temperature > 0, "a temperature is above zero"

    def encode(self, samples: Sequence[Sample]) -> list[Feature]:
        """Rows in numbers, in order; a row's target need not be known.

        Raises:
            DataError: a row cannot be read.
        """
        samples, found = self.with_targets(samples), list[Feature]()
        # Rows with one text and rows with two cannot be read together.
        for _, alike in groupby(samples, lambda sample: sorted(sample.inputs)):
            rows = list(alike)
            made = self.codec.encode(rows).features
            if len(made) != len(rows):
                kept = {feature.id for feature in made}
                lost = next(row.id for row in rows if row.id not in kept)
                raise DataError(f"the student cannot read row {lost}", got="too long, or cut off within a thought")
            found += made
        return found

    def with_targets(self, samples: Sequence[Sample]) -> list[Sample]:
        """The rows, with any class where theirs is not known: codecs were made for training, and want one."""
        known = set(self.labels)
        if not known:
            return list(samples)
        return [s if s.target in known else replace(s, target=self.labels[0]) for s in samples]

    def arrays(self, features: Sequence[Feature]) -> dict[str, NDArray[np.generic]]:
        """One padded batch as the runner takes it."""
        return {name: x.numpy() for name, x in self.codec.collate(features).inputs.items()}

    def logits(self, features: Sequence[Feature]) -> Floats:
        """What the model says of one batch, [N, C]; of a language model [N, positions, vocabulary].

        Raises:
            ModelError: the engine cannot run the batch, or gives something that is no number.
        """
        found = self.runner.run(self.arrays(features))["logits"].astype(np.float32, copy=False)
        if not np.isfinite(found).all():
            raise ModelError(
                f"the model gives logits that are no numbers ({self.runner.engine})", got="nan or infinity"
            )
        return found

    def answers(self, logits_NC: Floats) -> list[Answer]:
        """Logits of a classifier as labels with calibrated confidence.

        Raises:
            ModelError: it is a language model, or has more classes, or fewer, than there are labels.
        """
        if not self.labels:
            raise ModelError("a language model has no classes", fix="load_writer")
        if logits_NC.shape[1:] != (len(self.labels),):
            got = f"{len(self.labels)} labels, logits of shape {logits_NC.shape}"
            raise ModelError("the labels are not those of the model", got=got, fix="mend the labels of its card")
        probs_NC = calibrated(logits_NC, self.card.temperature)
        best = probs_NC.argmax(1)
        return [Answer(self.labels[i], float(row[i]), row) for i, row in zip(best.tolist(), probs_NC, strict=True)]

    def predict(self, samples: Sequence[Sample], batch_size: int = 32) -> list[Answer]:
        """Answers to rows, in order; rows of like length share a batch.

        Raises:
            DataError: a row cannot be read.
            ModelError: it is a language model, or the engine fails.
        """
        features = self.encode(samples)
        order = sorted(range(len(features)), key=lambda i: -features[i].length)
        found: dict[int, Answer] = {}
        for start in range(0, len(order), batch_size):
            places = order[start : start + batch_size]
            found.update(zip(places, self.answers(self.logits([features[i] for i in places])), strict=True))
        return [found[i] for i in range(len(features))]


def calibrated(logits_NC: Floats, temperature: float) -> Floats:
    """Probabilities `softmax(logits / temperature)`, [N, C]."""
    scaled = logits_NC.astype(np.float64) / temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    powers = np.exp(scaled)
    probs: Floats = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
    return probs


def load_student(
    folder: str | Path, engine: str = "auto", threads: int | None = None, *, device: str = "auto"
) -> ServedStudent:
    """A student from its folder: a plain Hugging Face one, or one that an export left.

    Args:
        folder: the student's, or an artifact or run that has one.
        engine: torch, onnxruntime, openvino; `auto`: what its format is made for.
        threads: of one request; None: the engine's own choice.
        device: cpu, cuda, or `auto`: cuda where there is one.

    Raises:
        ModelError: there is no student, its card and its files do not fit, or the engine does not know its format.
        MissingExtra: the engine is not installed.
    """
    place = student_folder(Path(folder))
    card = card_of(place)
    codec = codec_of(place, card)
    return ServedStudent(card, codec, runner_of(place, card, codec, engine, threads=threads, device=device))


def task_in(card: Card) -> Task:
    """The task that a card tells.

    Raises:
        ModelError: there is none of that name, or it has no such fields.
    """
    try:
        return cast(Task, build("task", card.task))
    except (RecipeError, ValueError) as error:
        raise ModelError("the card tells a task that is not known here", got=error) from error


def codec_of(folder: Path, card: Card) -> Codec:
    """A folder's tokenizer or image processor, bound to the card's task.

    Raises:
        ModelError: there is none, or the card of a classifier names no classes.
    """
    task = task_in(card)
    if "label" in task.roles and card.labels is None:
        raise ModelError("the card of a classifier names no classes", got=task.type(), fix="its `labels`")
    return task.codec(task.load_processor(str(folder), revision=None, trust_remote_code=False), card.labels)


def engines_of(format: str) -> tuple[str, ...]:
    """The engines that run a format here, the one that it is made for first; none for one that nothing here runs."""
    return tuple(_RUNNERS.get(format, ()))


def runner_of(
    folder: Path, card: Card, codec: Codec, engine: str = "auto", *, threads: int | None = None, device: str = "auto"
) -> Runner:
    """The engine for a folder, ready to run.

    Raises:
        ModelError: no engine here knows the format, or not the one that is asked for.
        MissingExtra: it is not installed.
    """
    known = _RUNNERS.get(card.format)
    if known is None:
        allowed = ", ".join(_RUNNERS)
        raise ModelError(f"nothing here runs the format `{card.format}`", got=str(folder), allowed=allowed)
    name = next(iter(known)) if engine == "auto" else engine
    if name not in known:
        raise ModelError(f"{name} does not run the format `{card.format}`", allowed=", ".join(known))
    return known[name](folder, card, codec, threads, device)


def in_torch(spec: Model, card: Card, *, threads: int | None = None, device: str = "auto") -> ServedStudent:
    """A model in torch, as a recipe names it: by a hub name with its revision, in a type, with code of its own.

    Args:
        spec: the recipe's section.
        card: how it is asked.
        threads: of one request; None: as many as torch has.
        device: cpu, cuda, or `auto`: cuda where there is one.

    Raises:
        ModelError: it cannot be loaded.
    """
    task, name = task_in(card), str(spec.model)
    read = task.load_processor(name, revision=spec.revision, trust_remote_code=spec.trust_remote_code)
    codec = task.codec(read, card.labels)
    return ServedStudent(card, codec, _loaded(spec, card, codec, threads, device))


def _loaded(spec: Model, card: Card, codec: Codec, threads: int | None, device: str) -> Runner:
    from limbeck.runtime.torch_runner import TorchRunner

    model = decoding_of(card).changed(load_model(spec, task_in(card).auto_class, settings={}))
    return TorchRunner(model, signature(example(codec)), threads=threads, device=device)


def _torch(folder: Path, card: Card, codec: Codec, threads: int | None, device: str) -> Runner:
    return _loaded(Model(model=str(folder)), card, codec, threads, device)


def _onnxruntime(folder: Path, card: Card, codec: Codec, threads: int | None, device: str) -> Runner:
    from limbeck.runtime.onnx_runner import OnnxRunner

    return OnnxRunner(file_inside(folder, card.file, "the card"), threads=threads, device=device)


def _openvino(folder: Path, card: Card, codec: Codec, threads: int | None, device: str) -> Runner:
    from limbeck.runtime.openvino_runner import OpenvinoRunner

    if device == "cuda":
        raise ModelError("OpenVINO knows no CUDA", fix="device: cpu")
    return OpenvinoRunner(file_inside(folder, card.file, "the card"), threads=threads)


_Make = Callable[[Path, Card, Codec, "int | None", str], Runner]
_RUNNERS: dict[str, dict[str, _Make]] = {
    "pytorch": {"torch": _torch},
    "onnx": {"onnxruntime": _onnxruntime, "openvino": _openvino},
    "openvino": {"openvino": _openvino},
}
"""By format: the engines that run it, the first by default."""
