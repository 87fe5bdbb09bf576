"""A cascade at work: the student first, and the next model for the rows of which it is unsure.

What stands behind the student may be slow, busy, broken or beyond its budget: then the answer so far is given, with a
word of what was missed, and it is counted. Nothing is promised of such answers; they are never given silently.
"""

from __future__ import annotations

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from limbeck.core.recipe.cascade import Rung
from limbeck.generation.budget import Budget
from limbeck.generation.classes import class_request, read_class
from limbeck.generation.endpoint import behind
from limbeck.generation.standing import Standing, Till
from limbeck.runtime.card import Card
from limbeck.runtime.cascade import Member, Plan, check_weights, load_member, read_plan, tempered
from limbeck.runtime.student import Answer, ServedStudent, load_student, task_in
from limbeck.serving.batching import Limits
from limbeck.serving.errors import ServingError
from limbeck.serving.feedback import Feedback
from limbeck.serving.metrics import Metrics
from limbeck.serving.model import Model

LEDGER = "cascade-ledger.sqlite"
"""In a run's folder: what its server has asked of endpoints, and paid for."""
_ATTEMPTS = 2
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Told(Answer):
    """An answer of a cascade.

    Attributes:
        by: the model whose answer it is.
        missed: models that should have been asked and gave none, with the reason: `teacher: expired`.
    """

    by: str
    missed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Missed:
    """No answer, and a word for why."""

    reason: str


class Next(ABC):
    """A model behind the student.

    Attributes:
        name: of the cascade's member.
    """

    name: str

    @abstractmethod
    async def answer(self, fields: Mapping[str, Any], before: Told, seconds: float) -> tuple[Answer, float] | Missed:
        """A row's answer, and how sure it is; or why there is none.

        Args:
            fields: the row's plain inputs.
            before: the answer so far.
            seconds: that there are.
        """

    @abstractmethod
    def close(self) -> None:
        """Stop."""


class Here(Next):
    """A model with weights, behind an engine of its own.

    Args:
        name: of the member.
        student: the model, its temperature the cascade's.
        limits: of the engine.
        metrics: told of its batches.
    """

    def __init__(self, name: str, student: ServedStudent, limits: Limits, metrics: Metrics):
        self.name = name
        self._model = Model(name, "1", student, limits, metrics)
        self._model.warm_up()

    async def answer(self, fields: Mapping[str, Any], before: Told, seconds: float) -> tuple[Answer, float] | Missed:
        try:
            found = self._model.answers(await self._model.ask([fields], seconds))[0]
        except ServingError as error:
            return Missed(error.reason)
        return found, found.confidence

    def close(self) -> None:
        self._model.retire(0)


class Behind(Next):
    """A model behind an address, asked for the class in words.

    It gives no probabilities: its answer has that which the model before it gave to the class.

    Args:
        name: of the member.
        rung: how it is asked.
        plan: of the cascade.
        standing: asks it.
    """

    def __init__(self, name: str, rung: Rung, plan: Plan, standing: Standing):
        self.name, self._rung, self._standing = name, rung, standing
        self._labels, self._roles = plan.labels, tuple(task_in(Card(task=plan.task)).roles)

    async def answer(self, fields: Mapping[str, Any], before: Told, seconds: float) -> tuple[Answer, float] | Missed:
        texts = {role: text for role, text in fields.items() if isinstance(text, str)}
        if len(texts) < len(fields):
            return Missed("no_text")
        assert self._rung.endpoint is not None
        how = self._labels, self._rung.endpoint, self._rung.prompt, self._rung.max_tokens
        request = class_request("", texts, *how, roles=self._roles)
        asked = asyncio.wrap_future(self._standing.ask(request))
        try:  # the call goes on if nobody waits for it any more: it may be paid for already
            outcome = await asyncio.wait_for(asyncio.shield(asked), seconds)
        except TimeoutError:
            asked.add_done_callback(lambda done: done.cancelled() or done.exception())
            return Missed("expired")
        label = read_class(outcome, self._labels)
        if not isinstance(label, str):
            return Missed(label.reason)
        probability = float(before.probabilities[self._labels.index(label)])
        return Answer(label, probability, before.probabilities), 1.0

    def close(self) -> None:
        self._standing.close()


class Cascade:
    """The models behind a student.

    Args:
        plan: as it was fitted.
        nexts: behind the student, in order.
        metrics: told of every row.
        feedback: keeps rows on which they disagree; None: nothing is kept.
        till: pays for endpoints; None: there are none.
    """

    def __init__(
        self,
        plan: Plan,
        nexts: Sequence[Next],
        metrics: Metrics,
        feedback: Feedback | None = None,
        till: Till | None = None,
    ):
        self.plan, self._nexts, self._metrics, self._feedback = plan, tuple(nexts), metrics, feedback
        self._till = till

    async def improve(
        self, fields: Sequence[Mapping[str, Any]], answers: Sequence[Answer], seconds: float
    ) -> list[Told]:
        """The cascade's answers, one a row.

        Args:
            fields: each row's plain inputs.
            answers: the student's.
            seconds: that there are; the plan's `timeout` is kept too.
        """
        name = self.plan.members[0].name
        end = time.monotonic() + min(seconds, self.plan.timeout)
        told = [Told(a.label, a.confidence, a.probabilities, by=name) for a in answers]
        unsure = [i for i, each in enumerate(told) if each.confidence < self.plan.threshold]
        for each in self._nexts:
            found = await asyncio.gather(*(self._ask(each, fields[i], told[i], end) for i in unsure))
            left = []
            for i, (now, sure) in zip(unsure, found, strict=True):
                told[i] = now
                if sure < self.plan.threshold:
                    left.append(i)
            unsure = left
        for row, first, last in zip(fields, answers, told, strict=True):
            self._metrics.cascade_rows.labels(last.by).inc()
            if self._feedback is not None and last.label != first.label:
                facts = {"by": last.by, "student": first.label, "confidence": round(first.confidence, 6)}
                self._feedback.add(row, last.label, **facts)
        return told

    def unasked(self, answers: Sequence[Answer], reason: str) -> list[Told]:
        """The student's answers, where no model behind it can be asked; those of which it is unsure say so."""
        name, after = self.plan.members[0].name, self._nexts[0].name
        told = []
        for each in answers:
            unsure = each.confidence < self.plan.threshold
            if unsure:
                self._metrics.cascade_missed.labels(after, reason).inc()
            self._metrics.cascade_rows.labels(name).inc()
            missed = (f"{after}: {reason}",) if unsure else ()
            told.append(Told(each.label, each.confidence, each.probabilities, by=name, missed=missed))
        return told

    def close(self) -> None:
        """Stop what stands behind the student, and write what is to be kept."""
        for each in self._nexts:
            each.close()
        if self._till is not None:
            self._till.close()
        if self._feedback is not None:
            self._feedback.close()

    async def _ask(self, each: Next, fields: Mapping[str, Any], before: Told, end: float) -> tuple[Told, float]:
        """The answer after a model was asked, and how sure the cascade is of it then."""
        seconds = end - time.monotonic()
        found: tuple[Answer, float] | Missed = Missed("expired")
        if seconds > 0:
            try:
                found = await each.answer(fields, before, seconds)
            except Exception as error:
                _LOG.error("a model of the cascade failed", extra={"model": each.name, "error": type(error).__name__})
                found = Missed("failed")
        if isinstance(found, Missed):
            self._metrics.cascade_missed.labels(each.name, found.reason).inc()
            return replace(before, missed=(*before.missed, f"{each.name}: {found.reason}")), 0.0
        answer, sure = found
        return Told(answer.label, answer.confidence, answer.probabilities, by=each.name, missed=before.missed), sure


class CascadeModel(Model):
    """A student with a cascade behind it, served like any other model over all protocols.

    Args:
        name: it is asked by.
        version: of that name.
        student: that answers first.
        limits: of its engine.
        metrics: told of its batches.
        cascade: that improves its answers.

    Raises:
        ModelError: it knows other classes than the cascade.
    """

    def __init__(
        self,
        name: str,
        version: str,
        student: ServedStudent,
        limits: Limits,
        metrics: Metrics,
        *,
        cascade: Cascade,
    ):
        super().__init__(name, version, tempered(cascade.plan, cascade.plan.members[0], student), limits, metrics)
        self.cascade = cascade

    async def ask(self, fields: Sequence[Mapping[str, Any]], seconds: float | None = None) -> dict[str, Any]:
        """The student's outputs, and what the cascade makes of them, `told`."""
        end = time.monotonic() + self._seconds(seconds)
        outputs = await super().ask(fields, seconds)
        answers = super().answers(outputs)
        return {**outputs, "told": await self.cascade.improve(fields, answers, end - time.monotonic())}

    def answers(self, outputs: Mapping[str, Any]) -> list[Answer]:
        """Labels with calibrated confidence, of type `Told`; where arrays were given, the student's own."""
        if "told" in outputs:
            return list(outputs["told"])
        return list(self.cascade.unasked(super().answers(outputs), "arrays"))


def load_cascade(
    run: Path,
    limits: Limits,
    metrics: Metrics,
    *,
    threads: int | None = None,
    feedback: Feedback | None = None,
) -> Cascade:
    """The cascade of a run, its models loaded.

    Args:
        run: its folder.
        limits: of every engine.
        metrics: told of all.
        threads: of an engine.
        feedback: keeps disagreements.

    Raises:
        ModelError: there is none, or a model is not what it was fitted with.
        RecipeError: the environment variable of an endpoint's key is not set.
    """
    plan = read_plan(run)
    made: list[Next] = []
    with ExitStack() as stack:  # what was begun is ended, should something after it fail
        till = None
        if any(member.asked is not None for member in plan.members):
            till = Till(run / LEDGER, Budget(**plan.budget))
            stack.callback(till.close)
        for member in plan.members[1:]:
            if member.asked is None:
                made.append(Here(member.name, load_member(run, plan, member, threads=threads), limits, metrics))
            else:
                assert till is not None
                made.append(_behind(plan, member, till))
            stack.callback(made[-1].close)
        stack.pop_all()
    return Cascade(plan, made, metrics, feedback, till)


def load_first(plan: Plan, folder: Path, engine: str = "auto", threads: int | None = None) -> ServedStudent:
    """The student of a cascade from the folder that it is served from, now or after it was replaced.

    Raises:
        ModelError: it is not the student that the cascade was fitted with, or cannot be loaded.
    """
    check_weights(plan, plan.members[0], folder)
    return load_student(folder, engine, threads)


def _behind(plan: Plan, member: Member, till: Till) -> Behind:
    rung = Rung.model_validate(member.asked)
    assert rung.endpoint is not None
    endpoint = replace(
        behind(rung.endpoint),
        timeout=min(rung.endpoint.timeout, plan.timeout),
        attempts=min(rung.endpoint.attempts, _ATTEMPTS),
        max_wait=plan.timeout,
    )
    return Behind(member.name, rung, plan, Standing(endpoint, till, max_waiting=plan.max_waiting))
