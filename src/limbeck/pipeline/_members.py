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
from limbeck.core.recipe import Model, Recipe, Teacher
from limbeck.core.recipe.cascade import Cascade, Rung
from limbeck.core.types import Sample
from limbeck.evaluation.predictions import Predictions, read
from limbeck.generation.budget import Budget, Price
from limbeck.generation.classes import UNREADABLE, class_request, read_class
from limbeck.generation.endpoint import behind
from limbeck.generation.engine import generate
from limbeck.generation.ledger import Ledger
from limbeck.generation.types import PERMANENT, Completion, Outcome
from limbeck.models.load import folder_digest, origin
from limbeck.pipeline._job import RunJob
from limbeck.runtime.cascade import Member, member_card, place_of, student_of
from limbeck.runtime.guess import student_folder
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
        cost: of an endpoint, what each row costs by its price, [N].
        most: of an endpoint, what the dearest of these rows could cost: every byte a token, and the longest answer.
    """

    right: Bools
    logs: Floats | None = None
    missed: Bools | None = None
    reasons: Mapping[str, int] = field(default_factory=dict)
    cost: Floats | None = None
    most: float | None = None


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
    for rung in section.to:
        _check_known(section, rung, teacher)
    if all(rung.model != "teacher" for rung in section.to):
        return
    if teacher is None or teacher.is_moving:
        what = "the cascade goes up to the teacher, but the recipe's has no weights of its own"
        raise RecipeError(what, got="no teacher" if teacher is None else teacher.model, fix="cascade.to=[FOLDER]")
    if teacher.also:
        what = "a cascade asks one model at a time, but several teach here"
        raise RecipeError(what, got=f"{1 + len(teacher.also)} teachers", fix="name one by its folder: cascade.to")
    if teacher.endpoint is None and teacher.finetune is None and isinstance(teacher.tokenizer, str):
        what = "a teacher with a `tokenizer` of its own cannot be served as it is named"
        raise RecipeError(what, got=teacher.model, fix="save both in one folder, and name that")


def _check_known(section: Cascade, rung: Rung, teacher: Teacher | None) -> None:
    """What is promised must be known of a model: a cost that nobody has told is not nothing."""
    promise, _ = section.promise.given
    if promise not in ("cost", "latency") or getattr(rung, promise) is not None:
        return
    endpoint = rung.endpoint or (teacher.endpoint if teacher is not None and rung.model == "teacher" else None)
    here = promise == "latency" and endpoint is None and rung.model == "teacher"  # `evaluate` measures it
    priced = promise == "cost" and endpoint is not None and endpoint.price.input + endpoint.price.output > 0
    if not here and not priced:
        fix = f"give its `{promise}` in `cascade.to`" + (", or its `price`" if promise == "cost" and endpoint else "")
        raise RecipeError(f"the {promise} of `{rung.title}` is not known", got="none", fix=fix)


def members(job: RunJob, section: Cascade, made: Mapping[str, Artifact]) -> list[Member]:
    """The student and what stands behind it.

    Raises:
        ModelError: there is nothing in a folder, or a model's classes are not the data's, in their order.
        RecipeError: a folder cannot be loaded in that way.
    """
    own = "compress" if "compress" in made else "train"
    found = [_member("student", f"{own}/student", job.output / own / "student", Model(model="student"))]
    for rung in section.to:
        if rung.model == "teacher":
            found.append(_teacher(job, rung, made))
        elif rung.endpoint is not None:
            found.append(_behind(rung))
        else:
            found.append(_named(rung))
    for member in found:
        if member.asked is None:
            card = member_card(place_of(job.output, member), member, config_of(job.task), job.label_names or ())
            if card.format != "pytorch" and member.dtype != "auto":
                what = f"the weights of `{member.name}` are {card.format}, and keep their type"
                raise RecipeError(what, got=f"dtype: {member.dtype}", fix="leave it out")
    return found


def _named(rung: Rung) -> Member:
    """A rung that the recipe names by a folder or on the hub."""
    given = Path(str(rung.model))
    if given.is_dir() and rung.revision is not None:
        raise RecipeError("a folder has no revisions", got=f"{given}, revision: {rung.revision}", fix="leave it out")
    model = str(student_folder(given)) if given.is_dir() else str(rung.model)
    code = rung.trust_remote_code
    return _elsewhere(rung.title, Model(model=model, revision=rung.revision, dtype=rung.dtype, trust_remote_code=code))


def _member(name: str, folder: str, place: Path, spec: Model) -> Member:
    """A model with weights, to be loaded as `spec` says; of a hub name the commit is written down."""
    here = place.is_dir()
    return Member(
        name=name,
        folder=folder,
        weights=folder_digest(place) if here else None,
        revision=None if here else origin(spec).revision,
        dtype=spec.dtype,
        trust_remote_code=spec.trust_remote_code,
    )


def _elsewhere(name: str, spec: Model) -> Member:
    """A model in a folder that is not the run's, or on the hub."""
    place = Path(str(spec.model))
    return _member(name, str(place.resolve()) if place.is_dir() else str(spec.model), place, spec)


def _behind(rung: Rung) -> Member:
    return Member(name=rung.title, asked=rung.model_dump(mode="json", exclude={"cost", "latency"}))


def _teacher(job: RunJob, rung: Rung, made: Mapping[str, Artifact]) -> Member:
    teacher = cast(Teacher, job.recipe.teacher)
    if teacher.endpoint is not None:
        return _behind(rung.model_copy(update={"model": None, "endpoint": teacher.endpoint, "name": rung.title}))
    if "teacher/config.json" in made["prepare"].manifest["files"]:
        return _member(rung.title, "prepare/teacher", made["prepare"].path / "teacher", teacher)
    return _elsewhere(rung.title, teacher)


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
    place = place_of(job.output, member)
    card = member_card(place, member, config_of(job.task), job.label_names or ())
    student = student_of(place, member, card)
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
    how, roles = (labels, rung.endpoint, rung.prompt, rung.max_tokens), job.task.roles
    requests = [class_request(each.id, each.inputs, *how, roles=roles) for each in samples]
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
    most = [price.worst(request).cost for request in requests]
    paid = [_paid(outcomes[request.key], price, worst) for request, worst in zip(requests, most, strict=True)]
    return Said(right, None, missed, dict(reasons), np.minimum(paid, most), max(most))


def _paid(outcome: Outcome, price: Price, worst: float) -> float:
    """What a row costs: of one without an answer nobody knows, so that it is all that it could."""
    if isinstance(outcome, Completion):
        return price.of(outcome.prompt_tokens, outcome.completion_tokens).cost
    return worst
