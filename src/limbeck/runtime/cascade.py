"""What is known of a cascade once it is fitted: `threshold.json`, from which it is run.

Shapes: N rows, C classes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from limbeck.core.artifacts import write_json
from limbeck.core.errors import ModelError
from limbeck.models.load import folder_digest
from limbeck.runtime.card import CARD, Card, read_card
from limbeck.runtime.student import ServedStudent, codec_of, runner_of

FILE = "threshold.json"
"""Name of the file, in a run's `cascade/`."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """A model of a cascade.

    Attributes:
        name: what answers name it by.
        folder: its weights: a folder inside of the run or elsewhere, or a hub name; None for an endpoint.
        temperature: what its logits are divided by before the softmax.
        weights: digest of the folder's files; None for a hub name or an endpoint.
        asked: of an endpoint, its section of the recipe.
    """

    name: str
    folder: str | None = None
    temperature: float = 1.0
    weights: str | None = None
    asked: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A fitted cascade.

    Attributes:
        threshold: a model that is less sure than this leaves a row to the next one.
        promise: what is kept with that.
        target: its figure.
        level: the chance with which it is kept.
        n: rows that it was fitted on.
        temperature_rows: other rows, on which temperatures were fitted.
        task: as a recipe gives it.
        labels: the classes.
        members: the student first.
        timeout: seconds that a server waits for the models behind the student.
        max_waiting: rows that wait for an endpoint at most.
        budget: what a server may spend on endpoints: tokens and cost.
    """

    threshold: float
    promise: str
    target: float
    level: float
    n: int
    temperature_rows: int
    task: dict[str, Any]
    labels: tuple[str, ...]
    members: tuple[Member, ...]
    timeout: float
    max_waiting: int
    budget: dict[str, Any]

    @property
    def temperatures(self) -> dict[str, float]:
        """Of the models that have weights here."""
        return {each.name: each.temperature for each in self.members if each.folder is not None}


def write_plan(plan: Plan, folder: Path) -> None:
    """Put it into an artifact's folder."""
    write_json(folder / FILE, {**asdict(plan), "temperatures": plan.temperatures})


def read_plan(run: Path) -> Plan:
    """The cascade of a run.

    Raises:
        ModelError: there is none, or it cannot be read.
    """
    path = run / "cascade" / FILE
    if not path.is_file():
        raise ModelError(f"{run} has no cascade", fix="a section `cascade` in its recipe, and limbeck cascade RECIPE")
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        del said["temperatures"]
        members = tuple(Member(**each) for each in said.pop("members"))
        return Plan(**said | {"labels": tuple(said["labels"]), "members": members})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(f"{path} cannot be read", got=str(error), fix="limbeck cascade RECIPE --force") from error


def place_of(run: Path, member: Member) -> Path:
    """Where a member's weights lie; a hub name stays one."""
    assert member.folder is not None
    inside = run / member.folder
    return inside if inside.is_dir() else Path(member.folder)


def tempered(plan: Plan, member: Member, student: ServedStudent) -> ServedStudent:
    """A model as the cascade was fitted with it: its confidence by the cascade's own temperature.

    Raises:
        ModelError: it has other classes.
    """
    if student.labels != plan.labels:
        raise ModelError(f"`{member.name}` knows other classes than the cascade", got=", ".join(student.labels[:6]))
    return ServedStudent(replace(student.card, temperature=member.temperature), student.codec, student.runner)


def check_weights(plan: Plan, member: Member, folder: Path) -> None:
    """See that a member is the model that the cascade was fitted with: for another one, nothing is promised.

    Raises:
        ModelError: its files have changed.
    """
    if member.weights is not None and folder_digest(folder) != member.weights:
        what = f"`{member.name}` is not the model that the cascade was fitted with"
        raise ModelError(what, got=str(folder), fix="limbeck cascade RECIPE")


def load_member(
    run: Path, plan: Plan, member: Member, *, threads: int | None = None, device: str = "auto"
) -> ServedStudent:
    """A model of a cascade that has weights.

    Raises:
        ModelError: it cannot be loaded, or is not what the cascade was fitted with.
    """
    place = place_of(run, member)
    check_weights(plan, member, place)
    known = (place / CARD).is_file()
    card = read_card(place) if known else Card(task=plan.task, labels=plan.labels)
    codec = codec_of(place, card)
    student = ServedStudent(card, codec, runner_of(place, card, codec, threads=threads, device=device))
    return tempered(plan, member, student)
