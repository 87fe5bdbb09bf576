"""The models of a cascade, and what each says of the rows: recorded predictions where there are some.

Shapes: N rows, C classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from limbeck.core.artifacts import Artifact
from limbeck.core.errors import BudgetError, RecipeError
from limbeck.core.parts import config_of
from limbeck.core.recipe import Recipe, Teacher
from limbeck.core.recipe.cascade import Cascade, Rung
from limbeck.core.types import Sample
from limbeck.evaluation.predictions import Predictions, read
from limbeck.generation.budget import Budget, Price
from limbeck.generation.classes import UNREADABLE, class_request, read_class
from limbeck.generation.endpoint import behind
from limbeck.generation.engine import generate
from limbeck.generation.ledger import Ledger
from limbeck.generation.types import PERMANENT, Completion
from limbeck.models.load import folder_digest
from limbeck.pipeline._job import RunJob
from limbeck.runtime.card import CARD, Card, read_card
from limbeck.runtime.cascade import Member
from limbeck.runtime.guess import student_folder
from limbeck.runtime.student import ServedStudent, codec_of, runner_of
from limbeck.tasks import Task

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
_LEAST = 1e-30
"""Probabilities below count as this: their logs are to be numbers."""


@dataclass(frozen=True)
class Said:
    """What a model says of rows.

    Attributes:
        right: whether its answer is, [N].
        logs: log probabilities, [N, C]; None for an endpoint.
        missed: rows to which there is no answer, [N]; None: to none.
        reasons: why, with counts.
        cost: what a row cost on average, of an endpoint.
    """

    right: Bools
    logs: Floats | None = None
    missed: Bools | None = None
    reasons: Mapping[str, int] = field(default_factory=dict)
    cost: float | None = None


def check_cascade(recipe: Recipe) -> None:
    """What the recipe alone tells of its cascade, before anything is trained.

    Raises:
        RecipeError: it is for another kind of task, or its teacher cannot be asked alone.
    """
    section, teacher, task = recipe.cascade, recipe.teacher, cast(Task, recipe.task)
    if section is None:
        return
    if "label" not in task.roles:
        raise RecipeError("`cascade` is for classifiers", got=task.type(), fix="leave it out")
    if all(rung.model != "teacher" for rung in section.to):
        return
    if teacher is None or teacher.is_moving:
        what = "the cascade goes up to the teacher, but the recipe's has no weights of its own"
        raise RecipeError(what, got="no teacher" if teacher is None else teacher.model, fix="cascade.to=[FOLDER]")
    if teacher.also:
        what = "a cascade asks one model at a time, but several teach here"
        raise RecipeError(what, got=f"{1 + len(teacher.also)} teachers", fix="name one by its folder: cascade.to")
    named = teacher.endpoint is None and teacher.finetune is None
    if named and (teacher.revision is not None or isinstance(teacher.tokenizer, str)):
        what = "a teacher with a `revision` or a `tokenizer` of its own cannot be served as it is named"
        raise RecipeError(what, got=teacher.model, fix="save both in one folder, and name that")


def members(job: RunJob, section: Cascade, made: Mapping[str, Artifact]) -> list[Member]:
    """The student and what stands behind it.

    Raises:
        ModelError: there is nothing in a folder.
    """
    own = "compress" if "compress" in made else "train"
    found = [_local(job.output, "student", f"{own}/student")]
    for rung in section.to:
        if rung.model == "teacher":
            found.append(_teacher(job, rung, made))
        elif rung.endpoint is not None:
            found.append(_behind(rung))
        else:
            given = Path(str(rung.model))
            folder = str(student_folder(given).resolve()) if given.is_dir() else str(rung.model)
            found.append(_local(job.output, rung.title, folder))
    return found


def _local(run: Path, name: str, folder: str) -> Member:
    place = run / folder
    weights = folder_digest(place) if place.is_dir() else None
    return Member(name=name, folder=folder, weights=weights)


def _behind(rung: Rung) -> Member:
    return Member(name=rung.title, asked=rung.model_dump(mode="json", exclude={"cost", "latency"}))


def _teacher(job: RunJob, rung: Rung, made: Mapping[str, Artifact]) -> Member:
    teacher = cast(Teacher, job.recipe.teacher)
    if teacher.endpoint is not None:
        return _behind(rung.model_copy(update={"model": None, "endpoint": teacher.endpoint, "name": rung.title}))
    if "teacher/config.json" in made["prepare"].manifest["files"]:
        return _local(job.output, rung.title, "prepare/teacher")
    given = Path(str(teacher.model))
    return _local(job.output, rung.title, str(given.resolve()) if given.is_dir() else str(teacher.model))


def said(
    job: RunJob,
    section: Cascade,
    member: Member,
    made: Mapping[str, Artifact],
    samples: Sequence[Sample],
    table: str,
) -> Said:
    """What a member says of rows.

    Args:
        job: the run.
        section: of the recipe.
        member: whose word it is.
        made: the artifacts, `evaluate` among them.
        samples: the rows.
        table: the recorded predictions of them, `predictions-{}.parquet` with the model's name in its place.

    Raises:
        ModelError: a model cannot be loaded or asked.
    """
    if member.asked is not None:
        return _asked(job, section, Rung.model_validate(member.asked), samples)
    recorded = table.format(evaluated_as(section, member))
    if recorded in made["evaluate"].manifest["files"]:
        return _recorded(read(made["evaluate"].file(recorded)), samples)
    return _predicted(job, member, samples)


def evaluated_as(section: Cascade, member: Member) -> str | None:
    """What `evaluate` calls a member; None for one that it knows nothing of."""
    own = {"train/student": "student", "compress/student": "compressed"}
    if member.folder in own:
        return own[member.folder]
    rungs = {rung.title: rung.model for rung in section.to}
    return "teacher" if rungs.get(member.name) == "teacher" and member.asked is None else None


def _recorded(table: Predictions, samples: Sequence[Sample]) -> Said:
    places = {name: i for i, name in enumerate(table["id"])}
    table = table.rows([places[sample.id] for sample in samples])
    return Said(table.correct.astype(bool), _logs(table.probabilities))


def _predicted(job: RunJob, member: Member, samples: Sequence[Sample]) -> Said:
    place = job.output / str(member.folder)
    place = place if place.is_dir() else Path(str(member.folder))
    card = read_card(place) if (place / CARD).is_file() else Card(task=config_of(job.task), labels=job.label_names)
    if card.labels != job.label_names:
        what = f"`{member.name}` knows other classes than the data, or has them in another order"
        raise RecipeError(what, got=", ".join((card.labels or ())[:6]), allowed=", ".join((job.label_names or ())[:6]))
    codec = codec_of(place, card)
    student = ServedStudent(card, codec, runner_of(place, card, codec))
    answers = student.predict(samples, job.recipe.training.per_device_eval_batch_size)
    right = np.array([answer.label == sample.target for answer, sample in zip(answers, samples, strict=True)])
    logs = _logs(np.stack([answer.probabilities for answer in answers]).astype(float))
    return Said(right, logs * card.temperature)  # the cascade has a temperature of its own


def _logs(probabilities: Any) -> Floats:
    return cast(Floats, np.log(np.maximum(probabilities, _LEAST)))


def _asked(job: RunJob, section: Cascade, rung: Rung, samples: Sequence[Sample]) -> Said:
    assert rung.endpoint is not None
    labels = job.label_names or ()
    for sample in samples:
        if not all(isinstance(text, str) for text in sample.inputs.values()):
            raise RecipeError(
                "an endpoint is asked about texts", got=", ".join(sample.inputs), fix="cascade.to=[FOLDER]"
            )
    requests = [
        class_request(each.id, each.inputs, labels, rung.endpoint, rung.prompt, rung.max_tokens) for each in samples
    ]
    budget = Budget(section.budget.tokens, section.budget.cost)
    with Ledger(job.ledger) as ledger:
        outcomes = generate(behind(rung.endpoint), requests, ledger, budget=budget, scope="cascade", title=rung.title)
    found = [read_class(outcomes[request.key], labels) for request in requests]
    right = np.array([label == sample.target for label, sample in zip(found, samples, strict=True)])
    missed = np.array([not isinstance(label, str) for label in found])
    reasons = Counter(label.reason for label in found if not isinstance(label, str))
    if reasons.keys() - PERMANENT - {UNREADABLE}:  # what says nothing of the model: an outage, a budget that is spent
        raise BudgetError(
            f"{rung.title} was not asked all rows that the cascade is fitted on, or did not answer for now",
            got=", ".join(f"{reason} {count}" for reason, count in reasons.items()),
            fix="raise cascade.budget, or run again later: answers that were paid for are kept",
        )
    price = Price(rung.endpoint.price.input, rung.endpoint.price.output)
    paid = [price.of(o.prompt_tokens, o.completion_tokens).cost for o in outcomes.values() if isinstance(o, Completion)]
    return Said(right, None, missed, dict(reasons), float(np.mean(paid)) if paid else None)
