"""A trained language model beside what becomes of it when it is compressed: both read, and write to, the same rows.

Shapes: N rows, T positions, V vocabulary, P positions of answers.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from limbeck.compression._sensitivity import Hurt
from limbeck.core.errors import DataError
from limbeck.core.types import IGNORE, Sample
from limbeck.evaluation.book import Book
from limbeck.evaluation.predict import final_answers
from limbeck.evaluation.statistics import mean, perplexity
from limbeck.exporters.onnxruntime_genai import OnnxruntimeGenai
from limbeck.pipeline._bench import Bench
from limbeck.pipeline._gate import Verdict, judge, judge_likelihood
from limbeck.runtime.card import Card
from limbeck.runtime.example import example, signature
from limbeck.runtime.genai import FILE, GenaiRunner, GenaiWriter
from limbeck.runtime.student import Floats, ServedStudent, codec_of
from limbeck.runtime.torch_runner import TorchRunner
from limbeck.runtime.writer import TorchWriter, Writer
from limbeck.tasks import Feature
from limbeck.tasks.causal_lm import CausalCodec

COMPARED = 64
"""Rows by which it is told how much a layer suffers."""
_AT_ONCE = 2**24
"""Logits that are held at a time."""


@dataclass(frozen=True)
class Spoken:
    """What a language model says.

    Attributes:
        answers: the final answers that it writes; empty where answers are not graded.
        nll: how unlikely it holds the rows' own answers, summed over their tokens, [N].
        likeliest: the token that it finds likeliest at each of their positions, [P].
    """

    answers: Sequence[str | None]
    nll: NDArray[np.float64]
    likeliest: NDArray[np.int64]


class LanguageBench(Bench):
    """A language model: the graph is onnxruntime-genai's, built once and compressed from there.

    Attributes:
        targets: the final answers that are right; empty where answers are not graded.
        tokens: of each row's own answer, [N].

    Raises:
        DataError: no row can be read.
    """

    whole: Spoken

    def _prepare(self, held: Sequence[Sample]) -> None:
        self.codec = cast(CausalCodec, codec_of(self.trained, self.card))
        self.features = self.codec.encode(held).features
        if not self.features:
            raise DataError("none of the validation rows can be read, so that the compressed student has no gate")
        kept = {feature.id for feature in self.features}
        self.samples = [sample for sample in held if sample.id in kept]
        graded = self.codec.task.answer_pattern is not None
        self.targets = final_answers(self.codec.task, self.samples) if graded else []
        self.tokens = np.array([len(_places(feature)) for feature in self.features])
        built = self.scratch / "built"
        shutil.rmtree(built, ignore_errors=True)  # of a try that was killed
        built.mkdir()
        self.made = OnnxruntimeGenai().export(self.trained, built, self.card)
        self.source, self.calibration = built / FILE, ()
        writer = TorchWriter(self.trained, self.card, self.codec)
        runner = TorchRunner(writer.model, signature(example(self.codec)))
        self.whole = self._said(writer, ServedStudent(self.card, self.codec, runner))

    def lay_beside(self, target: Path) -> None:
        for path in self.source.parent.iterdir():
            if not path.name.startswith(FILE):
                shutil.copyfile(path, target / path.name)

    def ask(self, target: Path) -> Spoken:
        return self._said(GenaiWriter(target, self.made, self.codec), self._served(target))

    def _served(self, folder: Path) -> ServedStudent:
        return ServedStudent(self.made, self.codec, GenaiRunner(folder, self.made))

    def _said(self, writer: Writer, student: ServedStudent) -> Spoken:
        nll, likeliest = [], []
        for feature, logs_PV in self._read(student, self.features):
            places = _places(feature)
            nll.append(-sum(logs_PV[i, feature.values["labels"][place]] for i, place in enumerate(places)))
            likeliest.append(logs_PV.argmax(1))
        answers: list[str | None] = []
        if self.targets:
            written = writer.write(self.samples, self.job.recipe.evaluate.max_new_tokens)
            answers = [self.codec.extract(each.text) for each in written]
        return Spoken(answers, np.array(nll), np.concatenate(likeliest))

    def _read(
        self, student: ServedStudent, features: Sequence[Feature]
    ) -> Iterator[tuple[Feature, NDArray[np.float64]]]:
        """Each row, with the log probabilities at the positions of its answer, [P, V]."""
        for feature in features:
            logits_TV = student.logits([feature])[0]
            yield feature, log_softmax(logits_TV[_places(feature)].astype(np.float64), axis=1)

    def judge(self, now: Spoken) -> Verdict:
        tolerance = self.part.tolerance
        if not self.targets:
            same = float((self.whole.likeliest == now.likeliest).mean())
            return judge_likelihood(tolerance, self.whole.nll, now.nll, self.tokens, same)
        alike = np.array([was == said for was, said in zip(self.whole.answers, now.answers, strict=True)])
        return judge(tolerance, self._right(self.whole), self._right(now), alike)

    def _right(self, said: Spoken) -> NDArray[np.bool_]:
        return np.array([answer == target for answer, target in zip(said.answers, self.targets, strict=True)])

    def card_after(self, now: Spoken) -> Card:
        return replace(self.made, precision=self.part.precision)

    def score(self, book: Book, model: str, said: Spoken) -> None:
        if self.targets:
            book.estimate(model, "accuracy", "answer_accuracy", "share", mean, self._right(said).astype(float))
        book.estimate(model, "accuracy", "perplexity", "per token", perplexity, said.nll, self.tokens)

    def suffering(self) -> list[Hurt]:
        trial = self.scratch / "one-layer"
        trial.mkdir(exist_ok=True)
        self.lay_beside(trial)
        return super().suffering()

    def logits(self, path: Path) -> Floats:
        found = list[NDArray[np.float64]]()
        student = self._served(path.parent)
        for _, logs_PV in self._read(student, self.features[:COMPARED]):
            found.append(logs_PV)
            if sum(each.size for each in found) >= _AT_ONCE:
                break
        return np.concatenate(found).astype(np.float32)


def _places(feature: Feature) -> list[int]:
    """The positions that a row's own answer is predicted at."""
    return [place for place, label in enumerate(feature.values["labels"]) if label != IGNORE]
