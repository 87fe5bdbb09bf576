"""The models of a run, ready to be asked one thing at a time: those that are here, and those behind an address."""

from __future__ import annotations

import math
import statistics
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from limbeck.core.errors import LimbeckError, ModelError
from limbeck.core.types import Sample
from limbeck.evaluation.predict import classify
from limbeck.generation.engine import generate
from limbeck.generation.ledger import Ledger
from limbeck.generation.types import BUDGET, Completion
from limbeck.models.load import check_length
from limbeck.pipeline._writers import WriterAtWork, asked
from limbeck.tasks import Codec
from limbeck.tasks._decode import Live, end_tokens
from limbeck.tasks.causal_lm import CausalCodec, CausalLM

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from limbeck.generation.budget import Budget
    from limbeck.generation.types import Generator

Hear = Callable[[str], bool]
"""Takes an answer as far as it has come; true ends it there."""

_TOP = 5
"""Classes that are shown with their probability."""
_REMEMBERED = 1000
"""Times of which the median is taken."""
_PATIENCE = 0.05
"""Seconds between two looks at an answer that is being written."""


@dataclass(frozen=True)
class Plan:
    """How a language model's answer is written.

    Attributes:
        max_new_tokens: the longest one.
        temperature: 0 is greedy.
        seed: of the draw.
    """

    max_new_tokens: int = 256
    temperature: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class Answer:
    """What a model said.

    Attributes:
        model: its name.
        prediction: the class, or the final answer; None where a text has none.
        milliseconds: from the question to the whole answer; None: it was known from before.
        top: the likeliest classes and their probabilities, falling.
        temperature: what the probabilities were calibrated with; None: they are the model's own.
        text: what a language model wrote.
        new_tokens: how many tokens that were, the end token among them.
        finished: whether it came to its end by itself.
    """

    model: str
    prediction: str | None
    milliseconds: float | None
    top: tuple[tuple[str, float], ...] = ()
    temperature: float | None = None
    text: str | None = None
    new_tokens: int = 0
    finished: bool = True

    @property
    def tokens_per_second(self) -> float | None:
        """How fast a text was written."""
        return None if not self.milliseconds or not self.new_tokens else 1000 * self.new_tokens / self.milliseconds


class Asked(ABC):
    """A model that can be asked.

    Attributes:
        name: its role in the run, or the name that the user gave it.
        parameters: how many it has; None where nobody here knows.
        paid: each answer may cost something.
        times: milliseconds of what it was asked so far.
    """

    parameters: int | None = None
    paid: bool = False

    def __init__(self, name: str):
        self.name = name
        self.times: deque[float] = deque(maxlen=_REMEMBERED)

    def answer(self, sample: Sample, plan: Plan, hear: Hear) -> Answer:
        """Its answer to one question.

        Args:
            sample: the question; its target plays no part.
            plan: for language models.
            hear: is told what is written, while it is written.

        Raises:
            LimbeckError: it cannot be answered.
        """
        ended = False

        def heard(text: str) -> bool:
            nonlocal ended
            ended = hear(text)
            return ended

        found = self._answer(sample, plan, heard)
        if found.milliseconds is not None and not ended:
            self.times.append(found.milliseconds)
        return found

    @property
    def median(self) -> float | None:
        """Median of the milliseconds so far."""
        return statistics.median(self.times) if self.times else None

    @abstractmethod
    def _answer(self, sample: Sample, plan: Plan, hear: Hear) -> Answer: ...


class Classifier(Asked):
    """A classifier of this process.

    Args:
        name: its name.
        model: in evaluation mode.
        codec: its own, with its own order of classes.
        temperature: what evaluation calibrated it with, if it did.
    """

    def __init__(self, name: str, model: PreTrainedModel, codec: Codec, temperature: float | None = None):
        super().__init__(name)
        assert codec.label_names is not None
        self.model, self.codec, self.temperature, self.labels = model, codec, temperature, codec.label_names
        self.parameters = model.num_parameters()

    def _answer(self, sample: Sample, plan: Plan, hear: Hear) -> Answer:
        begun = time.perf_counter()
        # A codec wants a class that it knows; what is predicted does not hang on it.
        features = self.codec.encode([replace(sample, target=self.labels[0])]).features
        check_length(self.model, features[0].length, self.name, "text", "a shorter text")
        said = classify(self.model, self.codec, features, 1, None)
        took = 1000 * (time.perf_counter() - begun)
        chances = calibrated(said["probabilities"][0], self.temperature)
        best = sorted(range(len(chances)), key=lambda i: -chances[i])[:_TOP]
        top = tuple((self.labels[i], chances[i]) for i in best)
        return Answer(self.name, said["prediction"][0], took, top, self.temperature)


def calibrated(chances: Sequence[float], temperature: float | None) -> list[float]:
    """Probabilities of softmax(logits / T), from those at T = 1.

    Args:
        chances: at T = 1.
        temperature: T; None leaves them as they are.
    """
    if temperature is None:
        return list(chances)
    logs = [math.log(max(p, 1e-45)) / temperature for p in chances]
    powers = [math.exp(each - max(logs)) for each in logs]
    return [each / sum(powers) for each in powers]


class Writer(Asked):
    """A language model of this process.

    Args:
        name: its name.
        model: in evaluation mode.
        codec: its own.
    """

    def __init__(self, name: str, model: PreTrainedModel, codec: CausalCodec):
        super().__init__(name)
        self.model, self.codec = model, codec
        self.ends = end_tokens(codec.processor, model)
        self.parameters = model.num_parameters()

    def _answer(self, sample: Sample, plan: Plan, hear: Hear) -> Answer:
        begun = told = time.perf_counter()
        prompt = self.codec.prompt_ids(sample)
        if not prompt:
            raise ModelError("there is nothing to go on from", fix="write something")
        fix = "a shorter question, or fewer new tokens"
        check_length(self.model, len(prompt) + plan.max_new_tokens, self.name, "question with its answer", fix)
        made: list[int] = []

        def heard(token: int) -> bool:
            nonlocal told
            made.append(token)
            if time.perf_counter() - told < _PATIENCE:
                return False
            told = time.perf_counter()
            return hear(self._text(made).rstrip("\ufffd"))  # half of a character may be on its way

        live = Live(heard, plan.temperature, plan.seed)
        with torch.no_grad():
            self.codec.generate(self.model, [prompt], self.ends, plan.max_new_tokens, live=live)
        text, finished = self._text(made), bool(made) and made[-1] in self.ends
        took = 1000 * (time.perf_counter() - begun)
        return Answer(self.name, final(self.codec.task, text), took, text=text, new_tokens=len(made), finished=finished)

    def _text(self, made: Sequence[int]) -> str:
        ids = made[:-1] if made and made[-1] in self.ends else made
        return str(self.codec.processor.decode(ids, skip_special_tokens=True))


def final(task: CausalLM, text: str) -> str | None:
    """The final answer in a text, where the task says what that is."""
    return None if task.answer_pattern is None else task.extract(text)


class Behind(Asked):
    """A model behind an address: asked within a budget, and for nothing that its ledger holds.

    Args:
        name: its name.
        writer: says what it is asked, as for a data stage.
        generator: asks it.
        task: reads the final answer.
        budget: what all questions of all sessions may cost together.
    """

    paid = True

    def __init__(self, name: str, writer: WriterAtWork, generator: Generator, task: CausalLM, budget: Budget):
        super().__init__(name)
        self.writer, self.generator, self.task, self.budget = writer, generator, task, budget

    @property
    def scope(self) -> str:
        """Under which its ledger counts what it has cost."""
        return f"play-{self.name}"

    def _answer(self, sample: Sample, plan: Plan, hear: Hear) -> Answer:
        begun = time.perf_counter()
        sampling = self.writer.sampling(max_tokens=plan.max_new_tokens, temperature=plan.temperature)
        turns = asked(self.writer.stage, sample.inputs["messages"])
        request = replace(self.writer.request(sample.id, 0, turns, sampling), seed=plan.seed)
        with Ledger(self.writer.job.ledger) as ledger:
            before = ledger.totals(self.scope)
            outcome = generate(
                self.generator, [request], ledger, budget=self.budget, scope=self.scope, title=self.name
            )[request.key]
            new = ledger.totals(self.scope) != before
        if not isinstance(outcome, Completion):
            what = "its budget does not hold this question" if outcome.reason == BUDGET else "it did not answer"
            raise LimbeckError(f"{self.name}: {what}", got=f"{outcome.reason}: {outcome.detail}".rstrip(": "))
        text = outcome.content
        if outcome.reasoning_content:
            text = f"{outcome.reasoning_content}\n\n{text}"
        return Answer(
            self.name,
            final(self.task, text),
            1000 * (time.perf_counter() - begun) if new else None,
            text=text,
            new_tokens=outcome.completion_tokens,
            finished=outcome.finish_reason == "stop",
        )
